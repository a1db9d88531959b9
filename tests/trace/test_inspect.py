"""What people ask of recordings, and what is left of one that is given away."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from recordings import ABOUT_NOTHING, command, file_of, memory

from hesper.cli import inspect as cli_inspect
from hesper.protocol.codec import Codec
from hesper.trace import inspect
from hesper.trace.anonymize import NOBODY, anonymize
from hesper.trace.decoded import decode
from hesper.trace.diff import differences
from hesper.trace.inspect import Filter
from hesper.trace.records import Kind, Reader, put
from hesper.trace.session import Said

CODEC = Codec()
SECRET = b"/home/somebody/secret project"


def encoded(name: str, **parameters: Any) -> bytes:
    """The bytes of a command."""
    return CODEC.encode(name, parameters)


def op(number: int, *words: int) -> list[int]:
    """A SPIR-V instruction."""
    return [(1 + len(words)) << 16 | number, *words]


def text_words(text: bytes) -> tuple[int, ...]:
    """A SPIR-V string."""
    padded = text + bytes(4 - len(text) % 4)
    return struct.unpack(f"<{len(padded) // 4}I", padded)


OP_NAME, OP_STRING, OP_SOURCE, OP_CAPABILITY = 5, 7, 3, 17
SHADER = [
    *(0x07230203, 0x00010000, 0, 10, 0),
    *op(OP_CAPABILITY, 1),
    *op(OP_STRING, 1, *text_words(SECRET)),
    *op(OP_SOURCE, 2, 450, 1, *text_words(SECRET)),
    *op(OP_NAME, 3, *text_words(SECRET)),
]

COMMANDS = [
    encoded(
        "vkCreateInstance",
        pCreateInfo={"pApplicationInfo": {"pApplicationName": SECRET, "apiVersion": 1 << 22}},
        pInstance=1,
    ),
    encoded("vkCreateBuffer", device=3, pCreateInfo={"size": 64}, pBuffer=17),
    encoded(
        "vkCreateShaderModule",
        device=3,
        pCreateInfo={"codeSize": 4 * len(SHADER), "pCode": SHADER},
        pShaderModule=18,
    ),
    encoded("vkCmdDraw", commandBuffer=9, vertexCount=3, instanceCount=1),
    encoded("vkCmdUpdateBuffer", commandBuffer=9, dstBuffer=17, dataSize=len(SECRET), pData=SECRET)
    if not len(SECRET) % 4
    else encoded(
        "vkCmdUpdateBuffer", commandBuffer=9, dstBuffer=17, dataSize=28, pData=SECRET[:28]
    ),
    encoded("vkDestroyBuffer", device=3, buffer=17),
]


def recording(commands: list[bytes] = COMMANDS, *more: bytes) -> bytes:
    """A file with these commands, a millisecond each, on a ring."""
    records = [
        command(data, time=i * 1_000_000, stream=5 if i else 0) for i, data in enumerate(commands)
    ]
    return file_of(b"".join(records), *more)


def reader(data: bytes) -> Reader:
    return Reader(io.BytesIO(data))


def names(data: bytes, **wanted: Any) -> list[str]:
    return [found.name for found in inspect.commands(reader(data), Filter(**wanted))]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"name": "vkCmd*"}, ["vkCmdDraw", "vkCmdUpdateBuffer"]),
        ({"object": 17}, ["vkCreateBuffer", "vkCmdUpdateBuffer", "vkDestroyBuffer"]),
        ({"ring": 0}, ["vkCreateInstance"]),
        ({"begin": 0.004}, ["vkCmdUpdateBuffer", "vkDestroyBuffer"]),
        ({"begin": 0.001, "end": 0.002}, ["vkCreateBuffer", "vkCreateShaderModule"]),
        ({"name": "vkDestroy*", "object": 18}, []),
    ],
)
def test_commands_are_found(wanted: dict[str, Any], found: list[str]) -> None:
    assert names(recording(), **wanted) == found


def test_lines_have_the_registrys_names() -> None:
    (draw,) = inspect.commands(reader(recording()), Filter(name="vkCmdDraw"))
    line = inspect.line_of(draw)
    assert "vkCmdDraw(commandBuffer=9, vertexCount=3, instanceCount=1" in line
    assert json.loads(inspect.json_of(draw))["parameters"]["vertexCount"] == 3


def test_a_command_that_cannot_be_read_is_shown_all_the_same() -> None:
    (found,) = inspect.commands(reader(recording([b"\xff\xff\x00\x00\0\0\0\0"])), Filter())
    assert "command 65535" in inspect.line_of(found)
    assert names(recording([COMMANDS[1][:-4]])) == ["vkCreateBuffer"]


def test_a_command_that_breaks_a_relation_is_shown_with_its_parameters() -> None:
    data = encoded("vkCreateImage", device=3, pCreateInfo={"mipLevels": 0}, pImage=20)
    (found,) = inspect.commands(reader(recording([data])), Filter())
    assert "mipLevels=0" in inspect.line_of(found)


def test_the_summary_says_how_it_ended() -> None:
    end = put(Kind.END, b"vkCmdDraw at byte 5: nonsense")
    text = "\n".join(inspect.summary(reader(recording(COMMANDS, end))))
    assert "program: made up" in text
    assert "end: vkCmdDraw at byte 5: nonsense" in text
    begun = put(Kind.BEGUN, COMMANDS[1][:4], stream=5)
    text = "\n".join(inspect.summary(reader(recording([], begun))))
    assert "unfinished: vkCreateBuffer (stream 5)" in text
    text = "\n".join(inspect.summary(reader(recording()[:-5])))
    assert "cut off" in text


def test_shaders_come_out_once() -> None:
    ((name, code),) = inspect.shaders(reader(recording([*COMMANDS, COMMANDS[2]])))
    assert name.endswith(".spv")
    assert code == struct.pack(f"<{len(SHADER)}I", *SHADER)


def test_files_of_shaders_are_not_called_as_a_worker_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording may have taken over who reads it."""
    (tmp_path / ".bashrc").write_text("mine")
    said = [Said(file=(name, b"code")) for name in (".bashrc", "../elsewhere", "a.spv", "..", "")]
    monkeypatch.setattr(cli_inspect, "ask", lambda *_, **__: iter(said))
    cli_inspect.command(tmp_path / "recording", shaders=tmp_path)
    name = f"{hashlib.sha256(b'code').hexdigest()[:16]}.spv"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bashrc", name]
    assert (tmp_path / ".bashrc").read_text() == "mine"


def test_time_is_told_by_command() -> None:
    lines = list(inspect.slow(reader(recording())))
    assert lines[0].endswith("in 6 commands")
    assert any("vkCmdDraw" in line for line in lines[1:7])


def test_two_runs_part_where_they_do() -> None:
    def found(commands: list[bytes]) -> list[Any]:
        return list(inspect.commands(reader(recording(commands)), Filter()))

    assert list(differences(found(COMMANDS), found(COMMANDS))) == []
    other = [*COMMANDS[:3], encoded("vkCmdDraw", commandBuffer=9, vertexCount=4), *COMMANDS[4:]]
    lines = list(differences(found(COMMANDS), found(other)))
    assert lines[0] == "stream 1 parts here:"
    assert "vertexCount=3" in lines[1]
    assert "vertexCount=4" in lines[2]


def test_what_is_given_away_has_no_strings_paths_or_contents() -> None:
    whole = recording(
        COMMANDS,
        memory(3, 0, SECRET * 100),
        memory(3, 0, SECRET * 100, Kind.LAST),
        put(Kind.UNFINISHED, SECRET),
        command(COMMANDS[1], SECRET),
        put(Kind.END, SECRET),
    )
    given = b"".join(anonymize(reader(whole)))
    found = reader(given)
    records = list(found)
    assert found.about.program == NOBODY
    assert found.about.driver == ABOUT_NOTHING.driver
    # Unpacked: nothing may be hidden in what is compressed.
    everything = b"".join(record.body for record in records)
    for word in (b"somebody", b"secret", b"project", b"/home"):
        assert word not in everything
    assert {record.kind for record in records} == {Kind.COMMAND, Kind.END}
    assert names(given)[:6] == names(whole)[:6]
    assert names(given, object=17) == [*names(whole, object=17)]


def test_a_shader_that_is_given_away_computes_the_same() -> None:
    given = b"".join(anonymize(reader(recording())))
    ((_, code),) = inspect.shaders(reader(given))
    words = struct.unpack(f"<{len(code) // 4}I", code)
    assert len(words) == len(SHADER)
    assert words[:7] == tuple(SHADER[:7])


def test_what_is_given_away_can_be_inspected_as_a_whole() -> None:
    given = b"".join(anonymize(reader(recording())))
    for i, record in enumerate(r for r in reader(given) if r.kind == Kind.COMMAND):
        assert decode(i, record).problem == ""
    assert list(inspect.summary(reader(given)))
