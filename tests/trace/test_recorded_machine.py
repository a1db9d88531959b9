"""A program in a virtual machine is recorded by its worker; a supervisor settles the files."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpu_requests import PAGE, create_blob, create_context, destroy_context, submit
from in_process_guest import InProcessGuest, InProcessVmm

from hesper.display.scanout import Size
from hesper.errors import OptionError
from hesper.event_loop import EventLoop
from hesper.gpu.device import GpuDevice
from hesper.gpu.runner import GpuOptions, GpuRunner
from hesper.gpu.wire import Response
from hesper.isolation.recordings import Recordings, RecordOptions
from hesper.log import get_logger
from hesper.protocol.codec import Codec
from hesper.trace.decoded import decode
from hesper.trace.records import Kind, Reader

CODEC = Codec()
REPLY_SIZE = 16 * PAGE


def unexpected() -> None:
    raise AssertionError("the device has ended")


def test_a_program_in_a_machine_is_recorded(tmp_path: Path) -> None:
    vmm = InProcessVmm(InProcessGuest.make_memory())
    loops: list[EventLoop] = []

    def attach(device: GpuDevice, loop: EventLoop) -> InProcessVmm:
        loops.append(loop)
        return vmm.attach(device, loop)

    worker = {"recording": {"folder": str(tmp_path)}}
    runner = GpuRunner(GpuOptions(size=Size(64, 48), worker=worker), unexpected)
    runner.start(attach)
    try:
        guest = InProcessGuest(vmm, loops[0])
        guest.start()
        assert guest.send(create_context(1, b"program")).type == Response.OK_NODATA
        assert guest.send(create_blob(7, REPLY_SIZE, ctx_id=1)).type == Response.OK_NODATA
        stream = {"resourceId": 7, "offset": 0, "size": REPLY_SIZE}
        commands = CODEC.encode("vkSetReplyCommandStreamMESA", {"pStream": stream})
        commands += CODEC.encode("vkEnumerateInstanceVersion", {"pApiVersion": 0}, reply=True)
        assert guest.send(submit(1, commands)).type == Response.OK_NODATA
        assert guest.send(destroy_context(1)).type == Response.OK_NODATA
    finally:
        runner.stop()
    (path,) = tmp_path.glob("*.hesper")
    reader = Reader(io.BytesIO(path.read_bytes()))
    assert reader.about.program == "program"
    assert reader.about.transport == "virtio-gpu"
    found = [decode(0, record) for record in reader if record.kind == Kind.COMMAND]
    assert [each.name for each in found][:2] == [
        "vkSetReplyCommandStreamMESA",
        "vkEnumerateInstanceVersion",
    ]
    assert found[1].outputs["pApiVersion"] >= 1 << 22


def ended(client: int, **other: Any) -> Any:
    """What the supervisor knows of a worker that has ended."""
    return SimpleNamespace(
        client=client,
        log=get_logger("test"),
        **{"reason": "", "crash": {}, "killed": "", "process": SimpleNamespace(returncode=0)}
        | other,
    )


@pytest.mark.parametrize(
    ("how", "is_kept"),
    [
        ({}, False),
        ({"reason": "it broke the protocol"}, True),
        ({"crash": {"command": "vkCmdDraw"}}, True),
        ({"process": SimpleNamespace(returncode=-signal.SIGKILL)}, True),
    ],
)
def test_the_last_seconds_are_kept_of_who_ends_badly(
    tmp_path: Path, how: dict[str, Any], is_kept: bool
) -> None:
    recordings = Recordings(RecordOptions(folder=str(tmp_path), last=30.0))
    first, second = recordings.begin(1)
    os.write(first, b"older")
    os.close(first)
    os.write(second, b"the newer one")
    os.close(second)
    older = next(tmp_path.glob("*.hesper"))
    os.utime(older, ns=(1, 1))
    recordings.end(ended(1, **how))
    found = list(tmp_path.iterdir())
    assert [path.read_bytes() for path in found] == ([b"the newer one"] if is_kept else [])


def test_what_is_recorded_as_a_whole_is_kept(tmp_path: Path) -> None:
    recordings = Recordings(RecordOptions(folder=str(tmp_path / "new")))
    (file,) = recordings.begin(1)
    os.close(file)
    recordings.end(ended(1))
    (path,) = (tmp_path / "new").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match="must be a folder"):
        Recordings(RecordOptions(folder=str(tmp_path / "file")))
