"""A whole GPU, its workers and the host's driver included, without vhost-user and with it."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gpu_requests import (
    PAGE,
    attach_backing,
    create_2d,
    create_blob,
    create_context,
    flush,
    map_blob,
    set_scanout,
    submit,
    transfer,
    unref,
)
from in_process_guest import InProcessGuest, InProcessVmm

from hesper.classes import Classes
from hesper.cli._server import parse_class
from hesper.display.scanout import Rect, Size
from hesper.errors import ListenError, StartError
from hesper.event_loop import EventLoop
from hesper.gpu.agreement import FEATURES
from hesper.gpu.device import GpuDevice
from hesper.gpu.runner import GpuOptions, GpuRunner
from hesper.gpu.wire import Feature, Response
from hesper.isolation.tracing import TRACE_BYTES
from hesper.limits import Limits
from hesper.protocol.codec import Codec, Reader
from hesper.vhost.wire import HEADER, U64, Request
from hesper.vhost_user_gpu import VhostUserGpu
from open_files import assert_closed_since, open_files

OK = Response.OK_NODATA
CODEC = Codec()
REPLY_SIZE = 16 * PAGE
PATIENCE = 180.0


def unexpected() -> None:
    raise AssertionError("the device has ended")


class WholeGpu:
    """A running GPU whose guest a VMM in this process has brought; its driver is loaded."""

    def __init__(self, classes: Classes = Classes((), Limits())) -> None:  # noqa: B008
        vmm = InProcessVmm(InProcessGuest.make_memory())
        loops: list[EventLoop] = []

        def attach(device: GpuDevice, loop: EventLoop) -> InProcessVmm:
            loops.append(loop)
            return vmm.attach(device, loop)

        self.runner = GpuRunner(GpuOptions(size=Size(64, 48), classes=classes), unexpected)
        self.runner.start(attach)
        self.guest = InProcessGuest(vmm, loops[0])
        self.guest.start()

    def context_names(self) -> list[str]:
        """What it says of its contexts."""
        self.runner.figures()
        self.guest.on_loop(lambda: None)
        return [figures.name for figures in self.runner.figures()]


@pytest.fixture
def gpu() -> Iterator[WholeGpu]:
    """See `WholeGpu`."""
    gpu = WholeGpu()
    yield gpu
    gpu.runner.stop()
    assert not gpu.guest.maps


def test_a_vmm_without_vhost_user_has_a_whole_gpu(gpu: WholeGpu) -> None:
    """A context, its memory in the guest's address space, a command with a fence, and its reply."""
    guest = gpu.guest
    assert guest.send(create_context(1, b"program")).type == OK
    assert guest.send(create_blob(7, REPLY_SIZE, ctx_id=1)).type == OK
    assert guest.send(map_blob(7, PAGE)).type == Response.OK_MAP_INFO
    stream = {"resourceId": 7, "offset": 0, "size": REPLY_SIZE}
    asked = {"pApiVersion": 0}
    commands = CODEC.encode("vkSetReplyCommandStreamMESA", {"pStream": stream})
    commands += CODEC.encode("vkEnumerateInstanceVersion", asked, reply=True)
    answer = guest.send(submit(1, commands, fence_id=5, ring_idx=0))
    assert (answer.type, answer.fence_id, answer.ctx_id) == (OK, 5, 1)
    with mmap.mmap(guest.mapped_fds[PAGE], REPLY_SIZE) as seen:
        command, result, outputs = CODEC.decode_reply(Reader(memoryview(bytes(seen))), asked)
    assert (command.name, result) == ("vkEnumerateInstanceVersion", 0)
    assert outputs["pApiVersion"] >= 1 << 22 | 1 << 12


def test_programs_of_a_class_have_what_it_has() -> None:
    """By their names, which the kernel of a guest may have cut off at fifteen characters."""
    texts = ["game:memory=64M,weight=4,program=supertuxkart-ng", "default:memory=96M"]
    classes = Classes(tuple(parse_class(text, Limits()) for text in texts), Limits())
    gpu = WholeGpu(classes)
    names = [b"supertuxkart-ng", b"supertuxkart-n", b"supertuxkart-n2", b"vkcube"]
    try:
        for number, name in enumerate(names, 1):
            assert gpu.guest.send(create_context(number, name)).type == OK
            assert gpu.guest.send(create_blob(number, ctx_id=number)).type == OK
        limits: dict[str, int] = {}
        end = time.monotonic() + PATIENCE
        while not all(limits.get(name.decode()) for name in names):
            assert time.monotonic() < end
            limits = {each.name: each.limit >> 20 for each in gpu.runner.figures()}
            gpu.guest.on_loop(lambda: None)
    finally:
        gpu.runner.stop()
    assert limits == {
        "supertuxkart-ng": 64, "supertuxkart-n": 96, "supertuxkart-n2": 96, "vkcube": 96,
    }  # fmt: skip


def test_a_vmm_without_vhost_user_shows_pictures(gpu: WholeGpu) -> None:
    guest, display = gpu.guest, gpu.runner.display
    whole = Rect(0, 0, 64, 48)
    pixels = np.arange(64 * 48, dtype="<u4").reshape(48, 64)
    where = guest.allocate(pixels.nbytes)
    guest.memory[where : where + pixels.nbytes] = pixels.tobytes()
    for each in (
        create_2d(3, 64, 48),
        attach_backing(3, [(where, pixels.nbytes)]),
        transfer(3, whole),
        set_scanout(0, 3, whole),
        flush(3, whole),
    ):
        assert guest.send(each).type == OK
    surface = display[0].surface
    assert surface is not None
    seen = np.zeros_like(pixels)
    surface.read(whole, seen)
    assert np.array_equal(seen, pixels)
    display[0].request_size(Size(800, 600))
    guest.wait_config_changes(1)
    assert guest.config()[0] == 1


def test_a_vmm_without_vhost_user_resets_it(gpu: WholeGpu) -> None:
    guest = gpu.guest
    assert guest.send(create_context(1)).type == OK
    assert guest.send(create_blob(7, ctx_id=1)).type == OK
    assert guest.send(map_blob(7, 0)).type == Response.OK_MAP_INFO
    assert gpu.context_names() == ["test"]
    guest.restart()
    assert gpu.context_names() == []
    assert guest.send(unref(7)).type == Response.ERR_INVALID_RESOURCE_ID
    assert guest.send(create_context(1)).type == OK


def test_contexts_are_seen_traced_and_ended(gpu: WholeGpu) -> None:
    guest, runner = gpu.guest, gpu.runner
    got: list[tuple[int, int]] = []

    def on_context(number: int, fd: int) -> None:
        got.append((number, os.fstat(fd).st_size))
        os.close(fd)

    assert guest.send(create_context(1, b"program")).type == OK
    assert runner.trace(60.0, on_context, PATIENCE)
    assert not runner.trace(60.0, lambda *_: None, PATIENCE), "one at a time"
    assert guest.send(create_context(2, b"another")).type == OK
    assert guest.send(create_blob(7, REPLY_SIZE, ctx_id=1)).type == OK

    def held() -> list[int]:
        return [figures.memory for figures in runner.figures(5.0)]

    end = time.monotonic() + PATIENCE
    while held() != [REPLY_SIZE, 0]:
        assert time.monotonic() < end, runner.figures()
        time.sleep(0.01)
    one, two = runner.figures()
    assert (one.name, two.name) == ("program", "another")
    assert one.limit > REPLY_SIZE
    assert one.held["descriptors"][0] >= 1
    assert one.doing
    assert got == [(one.context, TRACE_BYTES), (two.context, TRACE_BYTES)]
    runner.end_trace(on_context)
    assert runner.end(one.context, "so it is", PATIENCE)
    assert not runner.end(99, "nobody", PATIENCE)
    assert guest.send(submit(1, b"1234")).type == Response.ERR_UNSPEC
    assert gpu.context_names() == ["another"]


# At a socket.


def offered(path: Path) -> int:
    """Connect and ask for the features."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(HEADER.pack(Request.GET_FEATURES, 1, 0))
        answer = sock.recv(HEADER.size + U64.size)
        return int.from_bytes(answer[HEADER.size :], "little")


def test_it_runs_on_any_thread_and_leaves_signals_alone(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    features: list[int] = []

    def serve() -> None:
        with VhostUserGpu(tmp_path / "gpu", GpuOptions(), unexpected) as gpu:
            assert gpu.about["device"]
            assert not gpu.runner.figures()
            features.append(offered(tmp_path / "gpu"))
            assert {number: signal.getsignal(number) for number in before} == before
        gpu.stop()

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(PATIENCE)
    assert features
    assert features[0] & 0xFFFFFF == FEATURES
    assert not (tmp_path / "gpu").exists()


def test_two_at_a_time(tmp_path: Path) -> None:
    with (
        VhostUserGpu(tmp_path / "one", GpuOptions(), unexpected),
        VhostUserGpu(tmp_path / "two", GpuOptions(), unexpected),
    ):
        assert offered(tmp_path / "one") == offered(tmp_path / "two")


def test_the_alignment_of_blobs_is_offered_unless_it_is_withheld(tmp_path: Path) -> None:
    with VhostUserGpu(tmp_path / "gpu", GpuOptions(blob_alignment=False), unexpected):
        assert offered(tmp_path / "gpu") & 0xFFFFFF == FEATURES & ~Feature.BLOB_ALIGNMENT


def test_what_cannot_start_leaves_nothing_open(tmp_path: Path) -> None:
    before = open_files()
    (tmp_path / "no folder").touch()
    gpu = VhostUserGpu(tmp_path / "no folder" / "gpu", GpuOptions(), unexpected)
    with pytest.raises(ListenError):
        gpu.start()
    options = GpuOptions(worker={"driver": "no such driver"})
    gpu = VhostUserGpu(tmp_path / "gpu", options, unexpected)
    with pytest.raises(StartError, match="no such driver"):
        gpu.start()
    assert not (tmp_path / "gpu").exists()
    assert_closed_since(before)
