"""Golden recordings: what real clients of Mesa's Venus say, recorded anew by whoever wants them."""

from __future__ import annotations

import shutil
from pathlib import Path

from driver_program import compile_program
from screen import virtual_screen
from servers import Client, Place, Setup, serving

from hesper.protocol.codec import Codec, Reader
from hesper.trace.records import Kind, command_of
from hesper.trace.records import Reader as RecordingReader

PROGRAMS = ("vulkaninfo", "vkcube", "compute")
CUBE = ("vkcube", "--c", "30", "--suppress_popups")


def run(program: str, client: Client, folder: Path) -> None:
    """Run a program to its end; `folder`, of the client's, is where it may leave files."""
    if program == "vulkaninfo":
        client.run(["vulkaninfo"])
    elif program == "vkcube":
        with virtual_screen() as screen:
            shown = {"DISPLAY": screen.display, "MESA_VK_WSI_DEBUG": "sw"}
            client.run(CUBE, environ=shown)
    else:
        built = compile_program(folder, program)
        assert client.run([client.place.path(built)]).stdout.strip().isdecimal()


def record(place: Place, program: str, folder: Path, *arguments: str) -> Path:
    """The one recording of a program that runs in `place`, made in `folder` on this machine.

    arguments: more of the server's.
    """
    exchange = place.exchange / f"golden-{folder.name}"
    exchange.mkdir(mode=0o755)
    try:
        setup = Setup("recorded", ("--record", str(folder), *arguments))
        with serving(place, setup) as server:
            run(program, server.client(place), exchange)
    finally:
        shutil.rmtree(exchange)
    (path,) = folder.glob("*.hesper")
    return path


def commands(path: Path) -> list[bytes]:
    """The bytes of each command of a recording."""
    with path.open("rb") as file:
        return [command_of(r).data for r in RecordingReader(file) if r.kind == Kind.COMMAND]


def check_codec(path: Path) -> None:
    """See that the reference codec makes the same of every command."""
    codec = Codec()
    found = commands(path)
    assert len(found) > 50
    for data in found:
        command, flags, parameters = codec.decode(Reader(data))
        again = codec.encode(command.name, parameters, reply=bool(flags & 1))
        # Mesa leaves what was there in the padding behind strings.
        assert len(again) == len(data), command.name
        assert codec.decode(Reader(again)) == (command, flags, parameters)
