"""Nothing in the compiled code is counted, typed or searched for that the build has a name for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/hesper"
FILES = sorted(
    file
    for folder in ("kernel", "vtest", "gpu", "sockets")
    for suffix in ("pyx", "pxd", "pxi")
    for file in (SOURCE / folder).rglob(f"*.{suffix}")
)
BY_HAND = {
    "an offset that was counted": r"<[^<>\n]*\*\s*>\s*\(\s*\w+(?:\.\w+)*\s*\+\s*\d",
    "an offset into a block of parameters": r"\bparameters\s*\+\s*\d",
    "an sType or an extension's enumerant": r"\b1000\d{6}\b",
    "a name that is looked up at run time": r"\bb[\"']vk(?!Get\w+ProcAddr)[A-Z]",
}


def code_of(text: str) -> str:
    """Without comments and docstrings, line by line."""
    text = re.sub(r'"""(?:.|\n)*?"""', lambda m: "\n" * m[0].count("\n"), text)
    return re.sub(r"#.*", "", text)


@pytest.mark.parametrize("what", list(BY_HAND))
def test_nothing_is_done_by_hand(what: str) -> None:
    found = [
        f"{file.relative_to(SOURCE)}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(code_of(file.read_text()).splitlines(), 1)
        if re.search(BY_HAND[what], line)
    ]
    assert found == [], f"{what}; see commands.h and hesper_commands.pxd in the build"


@pytest.mark.parametrize(
    "line",
    [
        "size = (<uint64_t *>(info + 16))[0]",
        "x = <uint8_t **>(s.parameters + 24)",
        "if node.sType == 1000072000:",
        'index = command_named(b"vkCreateBuffer")',
    ],
)
def test_what_is_done_by_hand_is_found(line: str) -> None:
    assert any(re.search(pattern, code_of(line)) for pattern in BY_HAND.values())


def test_there_is_code_to_look_at() -> None:
    assert {str(file.relative_to(SOURCE)) for file in FILES} >= {
        "gpu/server.pyx",
        "kernel/core/decode.pxd",
        "kernel/runtime.pyx",
        "sockets/connection.pyx",
        "vtest/reader.pyx",
    }
