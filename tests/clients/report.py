"""Read vulkaninfo's text report as data.

The report is indented with tabs; headings are underlined with - or =.  Every line becomes one
entry: the path of what it stands under, and its value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Path = tuple[str, ...]

_EXTENSION = re.compile(r"^(VK_\w+)\s*: extension revision (\d+)$")
_VALUE = re.compile(r"^(.*?\S)\s*= (.*)$")
_COUNT = re.compile(r"^(.*?):? *count = (\d+)$")


@dataclass(frozen=True)
class Report:
    """What a vulkaninfo run has reported."""

    entries: dict[Path, str]
    device: str

    def extensions(self) -> frozenset[str]:
        """The device's extensions."""
        return frozenset(
            path[-1] for path in self.entries if len(path) > 1 and path[-2] == "Device Extensions"
        )

    def find(self, struct: str) -> dict[str, str]:
        """Fields with a value that the report shows under `struct` (`VkPhysicalDeviceLimits`)."""
        return {
            path[-1]: value
            for path, value in self.entries.items()
            if len(path) > 1 and path[-2].rstrip(":") == struct and value
        }


def parse(text: str) -> Report:
    """The entries of a report; the device's own name is replaced by DEVICE everywhere."""
    device = re.search(r"^\s*deviceName\s*= (.+)$", text, re.MULTILINE)
    if device is None:
        raise ValueError(f"no device in this report:\n{text[:2000]}")
    name = device[1].strip()
    lines = text.replace(name, "DEVICE").splitlines()
    entries: dict[Path, str] = {}
    stack: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        content = line.strip()
        if not content or set(content) <= {"-", "="}:
            continue
        depth = len(line) - len(line.lstrip("\t"))
        below = lines[number + 1].strip() if number + 1 < len(lines) else ""
        level = -1 if below and set(below) == {"="} else depth
        while stack and stack[-1][0] >= level:
            stack.pop()
        key, value = _split(content)
        stack.append((level, key))
        path = tuple(part for _, part in stack)
        # Lists repeat themselves: number the repetitions.
        repeated = 2
        while path in entries:
            path = (*path[:-1], f"{key} #{repeated}")
            repeated += 1
        stack[-1] = (level, path[-1])
        entries[path] = value
    return Report(entries, name)


def _split(content: str) -> tuple[str, str]:
    """Key and value of one line."""
    for pattern in (_EXTENSION, _COUNT, _VALUE):
        match = pattern.match(content)
        if match:
            # The number of a thing in the list is its content's business.
            return match[1].strip(), "" if pattern is _COUNT else match[2].strip()
    return content.rstrip(":"), ""
