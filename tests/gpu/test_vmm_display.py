"""A VMM that has a display of its own: from `GPU_SET_SOCKET` to pixels, and sizes to the guest."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from gpu_guest import Answer
from gpu_requests import (
    PAGE,
    attach_backing,
    create_2d,
    create_blob,
    flush,
    map_blob,
    request,
    set_scanout,
    set_scanout_blob,
    transfer,
)
from gpu_vm import Vm
from vhost_user_guest import VhostUserGuest
from vmm_window import VmmWindows

from hesper.display.scanout import Rect, Size
from hesper.display.vmm import screens
from hesper.gpu.wire import DISPLAY_ONE, EVENT_DISPLAY, BlobMemory, Command, Response
from hesper.vhost.wire import Request
from open_files import assert_closed_since, open_files

OK = Response.OK_NODATA


class WindowedVm(Vm):
    """A VM by vhost-user whose VMM has windows."""

    def __init__(self) -> None:
        super().__init__("vhost-user")
        self.guest.start()
        self.windows = VmmWindows(2)
        self.set_socket(self.windows.theirs.fileno())
        self.windows.theirs.close()

    def set_socket(self, *fds: int) -> int:
        """Hand descriptors over; returns the acknowledgement."""
        assert isinstance(self.guest, VhostUserGuest)
        return self.guest.frontend.acknowledged(Request.GPU_SET_SOCKET, b"", list(fds))

    def draw(self, width: int, height: int) -> np.ndarray:
        """Show a new picture on the first screen, as a driver without blobs does."""
        assert self.guest.send(create_2d(1, width, height)).type == OK
        start = self.guest.allocate(width * height * 4)
        pixels = np.random.default_rng(5).integers(0, 1 << 24, (height, width), np.uint32)
        data = pixels.astype("<u4").tobytes()
        self.guest.memory[start : start + len(data)] = data
        everything = Rect(0, 0, width, height)
        for each in (
            attach_backing(1, [(start, len(data))]),
            transfer(1, everything),
            set_scanout(0, 1, everything),
            flush(1, everything),
        ):
            assert self.guest.send(each).type == OK
        return pixels

    def ask(self, question: bytes) -> Answer:
        """Have the guest ask something, for which its VMM is asked."""
        number, place = self.guest.post(question)
        while (done := self.guest.take(timeout=0.01)) is None:
            self.windows.poll(0.01)
        assert done[0] == number
        return self.guest.read_answer(place, done[1])

    def ask_size(self) -> tuple[int, int]:
        """What the guest is told of its first screen, once its VMM has been asked."""
        answer = self.ask(request(Command.GET_DISPLAY_INFO))
        assert answer.type == Response.OK_DISPLAY_INFO
        _, _, width, height, enabled, _ = DISPLAY_ONE.unpack_from(answer.payload)
        assert enabled
        return width, height


@pytest.fixture
def vm() -> Iterator[WindowedVm]:
    """Its driver is loaded."""
    vm = WindowedVm()
    yield vm
    vm.windows.close()
    vm.close()


def test_a_picture_of_the_guest_is_in_the_window(vm: WindowedVm) -> None:
    pixels = vm.draw(150, 90)
    vm.windows.until(lambda: vm.windows.windows[0].shows(pixels))
    assert vm.windows.windows[1].picture is None


def test_a_blob_is_in_the_window_of_a_vmm_that_has_both(vm: WindowedVm) -> None:
    """What no QEMU up to 11.1 is: one with a display and memory that it shares with the guest."""
    guest = vm.guest
    context = vm.open_context(1)
    assert guest.send(create_blob(2, ctx_id=1, blob_id=5)).type == OK
    assert guest.send(map_blob(2, 0)).type == Response.OK_MAP_INFO
    guest.wait_maps(1)
    width, height = 64, PAGE // 256
    size = width * height * 4
    start = guest.allocate(size)
    pixels = np.random.default_rng(6).integers(0, 1 << 24, (height, width), np.uint32)
    guest.memory[start : start + size] = pixels.astype("<u4").tobytes()
    pieces = [(start, size)]
    assert guest.send(create_blob(7, size, memory=BlobMemory.GUEST, pieces=pieces)).type == OK
    everything = Rect(0, 0, width, height)
    assert guest.send(set_scanout_blob(7, everything, (width, height), width * 4)).type == OK
    vm.windows.until(lambda: vm.windows.windows[0].shows(pixels))
    pixels[3, 4] = 0x123456
    guest.memory[start : start + size] = pixels.astype("<u4").tobytes()
    assert guest.send(flush(7, everything)).type == OK
    vm.windows.until(lambda: vm.windows.windows[0].shows(pixels))
    assert not context.ended.is_set()


def test_a_window_that_is_resized_reaches_the_guest(vm: WindowedVm) -> None:
    """QEMU tells the driver that something has changed; it asks, and we ask QEMU."""
    assert vm.ask_size() == (1280, 800)
    vm.windows.sizes = [(1111, 777), (640, 480)]
    assert vm.ask_size() == (1111, 777)
    assert vm.display[1].wanted == (640, 480)


def test_the_monitor_has_the_windows_size_before_display_info_is_asked_for(vm: WindowedVm) -> None:
    """Linux asks for the EDID first, and goes by that."""
    vm.windows.sizes = [(1000, 600), (640, 480)]
    edid = vm.ask(request(Command.GET_EDID, struct.pack("<I4x", 0))).payload[8:]
    assert (edid[56] | edid[58] >> 4 << 8, edid[59] | edid[61] >> 4 << 8) == (1000, 600)


def test_the_vmm_is_not_told_of_other_viewers_sizes(vm: WindowedVm) -> None:
    """QEMU's window has no use for that, and complains."""
    vm.display[0].request_size(Size(900, 700))
    vm.settle()
    assert vm.guest.config()[0] & EVENT_DISPLAY
    assert vm.guest.config_changes == 0


def test_a_vmm_that_does_not_answer_leaves_the_guest_running(
    vm: WindowedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screens, "ASK_SECONDS", 0.05)
    vm.windows.answers = False
    for _ in range(5):
        answer = vm.guest.send(request(Command.GET_DISPLAY_INFO))
        assert answer.type == Response.OK_DISPLAY_INFO
    vm.draw(100, 100)


def test_a_driver_that_starts_over_while_it_waits_for_sizes(vm: WindowedVm) -> None:
    vm.windows.answers = False
    vm.guest.post(request(Command.GET_DISPLAY_INFO))
    vm.windows.until(lambda: vm.windows.unanswered)
    vm.guest.restart()
    vm.windows.answers = True
    vm.windows.answer()
    assert vm.ask_size() == (1280, 800)


def test_a_second_display_takes_the_place_of_the_first(vm: WindowedVm) -> None:
    pixels = vm.draw(64, 64)
    vm.windows.until(lambda: vm.windows.windows[0].shows(pixels))
    second = VmmWindows(2)
    assert vm.set_socket(second.theirs.fileno()) == 0
    second.theirs.close()
    second.until(lambda: second.windows[0].shows(pixels))
    with pytest.raises(ConnectionError):
        vm.windows.until(lambda: False)
    vm.windows.close()
    vm.windows = second
    assert vm.ask_size() == (1280, 800)


def no_descriptor() -> list[int]:
    return []


def a_file() -> list[int]:
    with tempfile.TemporaryFile() as file:
        return [os.dup(file.fileno())]


def a_datagram_socket() -> list[int]:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    ours.close()
    return [theirs.detach()]


def a_socket_without_a_peer() -> list[int]:
    return [socket.socket(socket.AF_UNIX).detach()]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_descriptor, "no descriptor came"),
        (a_file, "no socket"),
        (a_datagram_socket, "no stream socket"),
        (a_socket_without_a_peer, "no connection"),
    ],
)
def test_what_is_no_display_costs_a_line_and_nothing_else(
    vm: WindowedVm, caplog: pytest.LogCaptureFixture, make: Callable[[], list[int]], reason: str
) -> None:
    before = open_files()
    fds = make()
    assert vm.set_socket(*fds) == 1
    for fd in fds:
        os.close(fd)
    assert_closed_since(before)
    assert sum(f"GPU_SET_SOCKET: {reason}" in line for line in caplog.messages) == 1
    # Neither the guest nor the display that was there has noticed.
    pixels = vm.draw(80, 80)
    vm.windows.until(lambda: vm.windows.windows[0].shows(pixels))


def test_a_display_that_there_is_no_thread_for(
    vm: WindowedVm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = open_files()
    windows = VmmWindows(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert vm.set_socket(windows.theirs.fileno()) == 1
    windows.theirs.close()
    windows.close()
    assert_closed_since(before)
    assert sum("can't start new thread" in line for line in caplog.messages) == 1
    vm.draw(80, 80)


def test_garbage_on_the_display_leaves_the_guest_running(vm: WindowedVm) -> None:
    vm.windows.say(11, b"?")
    with pytest.raises(ConnectionError):
        vm.windows.until(lambda: False)
    vm.draw(80, 80)
    assert vm.guest.send(request(Command.GET_DISPLAY_INFO)).type == Response.OK_DISPLAY_INFO


def test_the_display_ends_with_the_vmm() -> None:
    vm = WindowedVm()
    vm.draw(50, 50)
    vm.disconnect()
    # What calls the device's loop has ended before that can.
    assert not any(thread.name == "vmm-screens" for thread in threading.enumerate())
    with pytest.raises(ConnectionError):
        vm.windows.until(lambda: False)
    vm.windows.close()
    vm.guest = vm.connect()
    vm.guest.start()
    # The next has none, and is told of sizes as ever.
    vm.display[0].request_size(Size(900, 700))
    vm.guest.wait_config_changes(1)
    assert vm.guest.send(request(Command.GET_DISPLAY_INFO)).type == Response.OK_DISPLAY_INFO
    vm.close()
