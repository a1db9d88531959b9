"""Writes the registry's numbers as a Python module: `hesper.vk.enumerants`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

_HEAD = '''"""Numbers of the Vulkan registry, version {version}.  Made by the build."""

'''


def write(vk: Any, facts: Path, folder: Path) -> None:
    """Write `enumerants.py` into `folder`, for the types in `facts`/enumerants.toml.

    Raises `KeyError` for a type that the registry does not have.
    """
    with (facts / "enumerants.toml").open("rb") as file:
        types = tomllib.load(file)["types"]
    numbers = {name: item.value for name, item in vk.constants.items()}
    for name in types:
        numbers |= _members(vk, name)
    text = _HEAD.format(version=vk.headerVersionComplete)
    for name, value in sorted(numbers.items()):
        if isinstance(value, int):
            text += f"{name} = {value}\n"
    for name in vk.versions:
        major, minor = map(int, re.findall(r"\d+", name))
        text += f"{name.replace('VERSION', 'API_VERSION')} = {major << 22 | minor << 12}\n"
    results = {value: name for name, value in _members(vk, "VkResult").items()}
    text += _table("RESULTS", "dict[int, str]", "VkResult by number.", results)
    text += _table(
        "TEXEL_BLOCKS",
        "dict[int, tuple[int, int, int]]",
        "Bytes, width and height of a texel block, by VkFormat: of colour, in one plane, and flat.",
        {numbers[name]: _block(item) for name, item in vk.formats.items() if _is_colour(item)},
    )
    text += _table(
        "PLANE_BLOCKS",
        "dict[int, tuple[tuple[int, int, int], ...]]",
        "The same of each plane, by VkFormat: those of several planes.",
        {
            numbers[name]: tuple(_block(vk.formats[plane.compatible]) for plane in item.planes)
            for name, item in vk.formats.items()
            if item.planes
        },
    )
    (folder / "enumerants.py").write_text(text)


def _members(vk: Any, name: str) -> dict[str, int]:
    """The enumerants of one type, by name; of those that have two names, the registry's own."""
    if name in vk.enums:
        return {each.name: each.value for each in vk.enums[name].fields}
    return {each.name: each.value for each in vk.bitmasks[name].flags}


def _is_colour(item: Any) -> bool:
    """Whether a format has one plane of flat blocks, and neither depth nor stencil."""
    is_flat = not item.blockExtent or item.blockExtent[2] == "1"
    return is_flat and not item.planes and not {"D", "S"} & {each.type for each in item.components}


def _block(item: Any) -> tuple[int, int, int]:
    width, height, _depth = map(int, item.blockExtent or (1, 1, 1))
    return item.blockSize, width, height


def _table(name: str, type_: str, docstring: str, rows: dict[Any, Any]) -> str:
    body = "".join(f"    {key!r}: {value!r},\n" for key, value in rows.items())
    return f'{name}: {type_} = {{\n{body}}}\n"""{docstring}"""\n'
