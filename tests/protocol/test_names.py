"""Vulkan's numbers stand nowhere by hand, and no name of Vulkan's is misspelt.

A command, a struct or an extension that the registry does not have would be ignored in a set of
names, and never served.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from vulkan_object import get_vulkan_object

from hesper import protocol

SOURCES = Path(__file__).parents[2] / "src" / "hesper"
REGISTERED = range(1_000_000_001, 1_001_000_000)
"""What extensions' enumerants lie in; none is exactly 1e9."""
VULKANS = re.compile(r"vk[A-Z]\w+|Vk[A-Z]\w+|VK_(?:KHR|EXT|MESA|NV|AMD|ARM|ANDROID)_\w+")
ENUMERANT = re.compile(
    r"\bVK_(?!KHR_|EXT_)[A-Z0-9]+_[A-Z0-9_]+\b|\bVk\w+(Bits|Flags2?|Result|Type)\b"
)


def python_files() -> list[Path]:
    return [
        path
        for path in sorted(SOURCES.rglob("*.py"))
        if not path.is_symlink() and "compiler" not in path.parts
    ]


def is_number(node: ast.expr | None) -> bool:
    """Whether an expression is made of literal integers only, and does not just say "none"."""
    if isinstance(node, ast.Constant):
        return type(node.value) is int and node.value != 0
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    if isinstance(node, ast.Tuple):
        return bool(node.elts) and all(map(is_number, node.elts))
    return False


def typed_by_hand(text: str) -> Iterator[str]:
    """Lines that give one of Vulkan's numbers as a literal."""
    lines = text.splitlines()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            if abs(node.value) in REGISTERED:
                yield lines[node.lineno - 1].strip()
        elif isinstance(node, ast.Assign | ast.AnnAssign) and is_number(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = " ".join(ast.unparse(target) for target in targets)
            comment = lines[node.lineno - 1].partition("#")[2]
            if re.search(r"\bVK_|STYPE|stype", names) or ENUMERANT.search(comment):
                yield lines[node.lineno - 1].strip()
    for body in (
        node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef)
    ):
        for node, after in itertools.pairwise(body):
            if (
                isinstance(node, ast.Assign | ast.AnnAssign)
                and is_number(node.value)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and ENUMERANT.match(str(after.value.value))
            ):
                yield lines[node.lineno - 1].strip()


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_no_number_of_the_registry_is_typed_by_hand(path: Path) -> None:
    assert list(typed_by_hand(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "X = {-1000023000: 'error'}",
        "VK_IMAGE_TILING_LINEAR: Final = 1",
        "EXPORT_STYPE = 7",
        "create.flags = 1  # VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR",
        "_GENERAL = 1\n'''VK_IMAGE_LAYOUT_GENERAL.'''",
        "A, B = 0x80, 0x1\n'''VkExternalMemoryHandleTypeFlagBits.'''",
    ],
)
def test_one_that_is_would_be_found(text: str) -> None:
    assert list(typed_by_hand(text))


@cache
def known_names() -> frozenset[str]:
    """Commands, types and extensions of the registry and of Mesa's own protocol."""
    vk = get_vulkan_object()
    groups = (vk.structs, vk.enums, vk.bitmasks, vk.flags, vk.handles)
    names = {*vk.commands, *vk.extensions, *protocol.load().commands, *protocol.load().structs}
    for group in groups:
        names |= group.keys() | {alias for item in group.values() for alias in item.aliases}
    # The registry keeps the first for Android's own loader, disabled; the other is a basic type.
    names |= protocol.extensions().keys() | {"VK_ANDROID_native_buffer", "VkDeviceAddress"}
    return frozenset(names)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_no_name_is_misspelt(path: Path) -> None:
    tree = ast.parse(path.read_text())
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    used = {
        node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str | bytes)
        and id(node) not in parts
    }
    unknown = {name for name in used if VULKANS.fullmatch(name)} - known_names()
    assert {name for name in unknown if not begins_several(name)} == set()


def begins_several(text: str) -> bool:
    """Whether several names go on from there with a new word, as after `vkCreate`."""
    going_on = (name[len(text) :] for name in known_names() if name.startswith(text))
    return sum(rest[:1].isupper() for rest in going_on) > 1


@pytest.mark.parametrize(
    "path", sorted(SOURCES.rglob("*.toml")), ids=lambda path: str(path.relative_to(SOURCES))
)
def test_no_name_in_a_table_is_misspelt(path: Path) -> None:
    lines = [line.partition("#")[0] for line in path.read_text().splitlines()]
    used = {match[0] for line in lines for match in VULKANS.finditer(line)}
    assert used - known_names() == set()
