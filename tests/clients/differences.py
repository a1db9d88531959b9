"""Compare two vulkaninfo reports, leaving out what `differences.toml` explains."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from promotions import registry, where_the_other_shows_it
from report import Report

RULES = Path(__file__).with_name("differences.toml")

_NOT_THE_DEVICES = {"VULKANINFO", "Layers", "Instance Extensions", "Presentable Surfaces"}
"""Top headings about the loader, layers and screens of the client's machine."""


@dataclass(frozen=True)
class Rules:
    """What may differ: names (of an extension, struct, or `struct.field`) by kind, with reasons.

    An extension stands for its structs and for what it brought to a core version, too, and a field
    of a core version for the same field of an extension's struct.
    """

    missing: dict[str, str]
    """In the bare driver's report only."""
    added: dict[str, str]
    """In Hesper's report only."""
    changed: dict[str, str]
    """In both, with other values."""


def load_rules() -> Rules:
    """Read `differences.toml`; every rule must have a reason."""
    tables = tomllib.loads(RULES.read_text())
    found: dict[str, dict[str, str]] = {"missing": {}, "added": {}, "changed": {}}
    for kind, rules in tables.items():
        for rule in rules:
            for name in rule["names"]:
                found[kind][name] = rule["reason"]
    return Rules(**found)


@dataclass(frozen=True)
class Difference:
    """One line in which two reports differ."""

    kind: str
    """`missing`, `added` or `changed`."""
    path: tuple[str, ...]
    text: str

    def names(self) -> Iterator[str]:
        """What a rule may call it."""
        for name in self.path:
            yield name
            yield from registry().extensions.get(name, ())
        for field in zip(self.path, self.path[1:], strict=False):
            yield ".".join(field)
            yield from registry().extensions_of(field)
            if field in registry().core:
                yield ".".join(registry().core[field])


def differences(bare: Report, shown: Report) -> Iterator[Difference]:
    """Everything in which the reports differ."""
    expected = where_the_other_shows_it(bare.entries, shown)
    for path, value in expected.items():
        if path[0] in _NOT_THE_DEVICES:
            continue
        if path not in shown.entries:
            yield Difference("missing", path, value)
        elif shown.entries[path] != value:
            yield Difference("changed", path, f"{value} became {shown.entries[path]}")
    for path, value in shown.entries.items():
        if path not in expected and path[0] not in _NOT_THE_DEVICES:
            yield Difference("added", path, value)


def explain(found: Iterator[Difference], rules: Rules) -> tuple[list[str], set[tuple[str, str]]]:
    """Lines that no rule explains, and the rules (kind, name) that explained something."""
    unexplained: list[str] = []
    used: set[tuple[str, str]] = set()
    for difference in found:
        known = getattr(rules, difference.kind)
        matching = {name for name in difference.names() if name in known}
        used |= {(difference.kind, name) for name in matching}
        if not matching:
            where = " / ".join(difference.path)
            unexplained.append(f"{difference.kind}: {where}: {difference.text}")
    return unexplained, used
