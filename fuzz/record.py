"""Seeds of what real clients say: `python -m fuzz.record`, which `scripts/fuzz` calls.

vulkaninfo, vkcube and a program that computes run with Mesa's Venus driver, against a server of
this Hesper on lavapipe, which records them.  What they say becomes inputs of `context` and `vtest`
below build/fuzz/TARGET/recorded, and the recordings inputs of `recording`.  They are made anew,
being Mesa's bytes, not ours.
"""

from __future__ import annotations

import io
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from screen import virtual_screen
from servers import Client, Setup, serving, this_machine, through

from fuzz.guest_program import REPLIES, RING, SIZE, input_of
from fuzz.recorder import CODEC, Recorder, Session
from fuzz.runner import LENGTHS, OUTPUT, RECORDED, ROOT
from fuzz.targets.recording import input_of_records
from fuzz.targets.vtest import input_of_messages
from hesper.protocol.codec import REPLY_WANTED, Reader
from hesper.trace.records import Reader as RecordingReader
from hesper.trace.records import put

COMPUTE = ROOT / "tests" / "clients" / "compute_program.py"
PIECE = 1 << 14
ALLOCATED = 1 << 16
LEFT_OUT = {
    "vkCreateRingMESA", "vkDestroyRingMESA", "vkNotifyRingMESA", "vkWriteRingExtraMESA",
    "vkSubmitVirtqueueSeqnoMESA", "vkWaitVirtqueueSeqnoMESA", "vkWaitRingSeqnoMESA",
}  # fmt: skip
"""About rings: the target has its own."""


def programs(screen: str, folder: Path) -> dict[str, Callable[[Client], object]]:
    """What runs, by name."""
    cube = ["vkcube", "--c", "3", "--suppress_popups"]
    compute = [sys.executable, str(COMPUTE), str(folder / "product")]
    environ = {"WGPU_BACKEND_TYPE": "Vulkan", "PYTHONPATH": ":".join(filter(None, sys.path))}
    on_screen = {"DISPLAY": screen, "MESA_VK_WSI_DEBUG": "sw"}
    return {
        "vulkaninfo": lambda client: client.run(["vulkaninfo"]),
        "vkcube": lambda client: client.run(cube, environ=on_screen),
        "compute": lambda client: client.run(compute, environ=environ),
    }


def record() -> tuple[dict[str, Session], list[bytes]]:
    """Run all; returns the longest session of each, and the recordings of all."""
    recorded = {}
    with tempfile.TemporaryDirectory(prefix="hesper-record-") as name:
        folder = Path(name)
        place = this_machine(folder)
        setup = Setup("recorded", ("--record", str(folder / "recordings")))
        with serving(place, setup) as server, virtual_screen() as screen:
            for title, run in programs(screen.display, folder).items():
                with Recorder(folder / title, server.socket) as recorder:
                    run(through(place, recorder.path))
                sessions = recorder.sessions
                recorded[title] = max(sessions, key=lambda session: len(session.commands))
        files = sorted((folder / "recordings").iterdir())
        return recorded, [file.read_bytes() for file in files]


def commands(session: Session) -> Iterator[bytes]:
    """Each command as the target's own memory wants it."""
    for name, data in session.commands:
        if name in LEFT_OUT:
            continue
        _, flags, parameters = CODEC.decode(Reader(data))
        if name == "vkSetReplyCommandStreamMESA":
            # The first resource, which the target's program makes.
            parameters["pStream"] = {"resourceId": 1, "offset": REPLIES, "size": 2 * RING}
        elif name == "vkSeekReplyCommandStreamMESA":
            parameters["position"] %= RING
        elif name == "vkCreateDevice":
            # The target's driver has others than the one that was recorded with.
            info = parameters["pCreateInfo"]
            info |= {"enabledExtensionCount": 0, "ppEnabledExtensionNames": None}
        elif name == "vkAllocateMemory":
            # And wants more of it for the same.
            parameters["pAllocateInfo"]["allocationSize"] += ALLOCATED
        else:
            yield data
            continue
        yield CODEC.encode(name, parameters, reply=bool(flags & REPLY_WANTED))


def pieces(each: list[bytes], most: int, size: int) -> list[bytes]:
    """Commands in pieces of at most `size` bytes, `most` in all."""
    found, piece, total = [], b"", 0
    for data in each:
        if len(data) > size or total + len(data) > most:
            break
        total += len(data)
        if len(piece) + len(data) > size:
            found.append(piece)
            piece = b""
        piece += data
    return [*found, piece]


def inputs(session: Session) -> dict[str, list[bytes]]:
    """Inputs of each target that say the same as a session did."""
    said = list(commands(session))
    most = LENGTHS["context"] - 1024
    context = [
        input_of(pieces(said, most, PIECE)),
        input_of(pieces(said, most // 8, PIECE)),
        # All at once, or a ring would be written over before it is read.
        input_of(pieces(said, SIZE, SIZE), ring=True),
        input_of(pieces(said, RING, RING), stream=True),
    ]
    return {"context": context, "vtest": [input_of_messages(session.messages)]}


def of_recording(data: bytes) -> list[bytes]:
    """Inputs of `recording`: each of the questions about what begins a file, and what ends it."""
    records = [
        put(each.kind, each.body, flags=each.flags, time=each.time, stream=each.stream)
        for each in RecordingReader(io.BytesIO(data))
        if len(each.body) <= PIECE
    ]
    most = LENGTHS["recording"] - 1024
    first, last = fitting(records, most), fitting(records[::-1], most)
    parts = (b"".join(first), b"".join(last[::-1]))
    return [input_of_records(what, part) for what in range(6) for part in parts]


def fitting(records: list[bytes], most: int) -> list[bytes]:
    """So many of them, from the first on, as have at most `most` bytes."""
    ends = itertools.accumulate(map(len, records))
    return [record for record, end in zip(records, ends, strict=True) if end <= most]


def main() -> None:
    """Record, and write."""
    sessions, recordings = record()
    found = {title: inputs(session) for title, session in sessions.items()}
    found |= {
        f"file-{number}": {"recording": of_recording(data)}
        for number, data in enumerate(recordings)
    }
    for target in ("context", "vtest", "recording"):
        shutil.rmtree(OUTPUT / target / RECORDED, ignore_errors=True)
        (OUTPUT / target / RECORDED).mkdir(parents=True)
    for title, by_target in found.items():
        for target, each in by_target.items():
            for number, data in enumerate(each):
                (OUTPUT / target / RECORDED / f"{title}-{number}").write_bytes(data)
    for title, session in sessions.items():
        size = sum(len(data) for _, data in session.commands)
        print(
            f"    {title}: {len(session.commands)} commands, {size} bytes,"
            f" {len(session.messages)} messages"
        )


if __name__ == "__main__":
    main()
