"""What came with which extension, and where it is shown once a core version has it.

vulkaninfo shows what became core in a version in that version's structs where the device knows the
version (and vulkaninfo does), and where not in those of the extensions that it came from.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from report import Path, Report
from vulkan_object import get_vulkan_object

_CORE = re.compile(r"VkPhysicalDevice(Vulkan\d\d)(Features|Properties)")

Field = tuple[str, str]
"""A struct and one of its members."""


@dataclass(frozen=True)
class Registry:
    """What the registry says of the structs that vulkaninfo shows."""

    extensions: Mapping[str, list[str]]
    """The extensions that a struct came with, by each of its names."""
    structs: Mapping[Field, list[str]]
    """Names of extensions' structs that have what is a core version's field."""
    named: Mapping[Field, str]
    """The extension of the same name as a core version's field that no such struct has."""
    core: Mapping[Field, Field]
    """A core version's field, by that of each struct that has it, too."""

    def extensions_of(self, field: Field) -> Iterator[str]:
        """The extensions that a core version's field came with."""
        for struct in self.structs.get(field, ()):
            yield from self.extensions[struct]
        if field in self.named:
            yield self.named[field]


@cache
def registry() -> Registry:
    """The registry that Hesper was built with."""
    known = get_vulkan_object()
    heads = ("VkPhysicalDeviceFeatures2", "VkPhysicalDeviceProperties2", "VkQueueFamilyProperties2")
    extensions: dict[str, list[str]] = {}
    having: defaultdict[Field, list[str]] = defaultdict(list)
    core: list[tuple[str, Field]] = []
    for name, struct in known.structs.items():
        head = next((head for head in heads if head in struct.extends), "")
        if _CORE.fullmatch(name):
            core += [(head, (name, member.name)) for member in struct.members]
        elif head and struct.extensions:
            for alias in (name, *struct.aliases):
                extensions[alias] = struct.extensions
                for member in struct.members:
                    having[head, member.name].append(alias)
    structs = {field: having[head, field[1]] for head, field in core}
    named = {
        field: name
        for name, extension in known.extensions.items()
        for field, shown in structs.items()
        if not shown and extension.promotedTo and field[1].startswith(_as_field(name))
    }
    fields = {(struct, field[1]): field for field, shown in structs.items() for struct in shown}
    return Registry(extensions, structs, named, fields)


def _as_field(extension: str) -> str:
    """`VK_KHR_push_descriptor` as `pushDescriptor`."""
    _, _, first, *others = extension.split("_")
    return first + "".join(word.capitalize() for word in others)


def where_the_other_shows_it(entries: Mapping[Path, str], other: Report) -> dict[Path, str]:
    """One device's entries, with a core version's fields where another device's report has them.

    Fields that the other has nowhere stay where they are.
    """
    found: dict[Path, str] = {}
    extensions = other.extensions()
    for path, value in entries.items():
        head, struct, *below = (*path, "") if len(path) == 1 else path
        if not _CORE.fullmatch(struct) or (head, struct) in other.entries:
            found[path] = value
            continue
        if not below:
            continue
        shown = registry().structs.get((struct, below[0]), ())
        instead = next((name for name in shown if (head, name) in other.entries), None)
        if instead is not None:
            found[head, instead] = ""
            found[head, instead, *below] = value
        elif value != "true" or registry().named.get((struct, below[0])) not in extensions:
            found[path] = value
    return found
