"""A real guest: Linux, Mesa's Venus driver, a screen.  One boot for all of this file."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from guest_checks import check_blob_on_screen, check_compute, check_rendering, value
from guest_vm import GpuGuest, gpu_guest
from initramfs import Tree
from PIL import Image

from hesper.display.input import ABSOLUTE_MAX, Button, Key, PointerButton, PointerMove
from hesper.display.keys import CODE_OF_KEYSYM
from hesper.display.scanout import Size, Update
from hesper.vm.monitor import Monitor
from hesper.vm.outputs import OutputOptions, Outputs

PROGRAMS = ("compute", "render", "scanout", "pattern", "cursor", "virtgpu")


@pytest.fixture(scope="module")
def vm(tree: Tree, program: Callable[[str], Path]) -> Iterator[GpuGuest]:
    """A guest with two screens and the programs."""
    with gpu_guest(tree, scanouts=2, programs=[program(name) for name in PROGRAMS]) as guest:
        yield guest


def test_the_driver_finds_what_the_device_has(vm: GpuGuest) -> None:
    log = vm.run("dmesg | grep drm")
    for feature in ("virgl", "edid", "resource_blob", "host_visible", "context_init"):
        assert f"+{feature}" in log
    assert "number of scanouts: 2" in log
    assert "number of cap sets: 1" in log
    assert "cap set 0: id 4" in log
    assert "ERROR" not in log


def test_screens_have_the_mode_that_was_asked_for(vm: GpuGuest) -> None:
    modes = vm.run("head -qn1 /sys/class/drm/card0-Virtual-*/modes").split()
    assert modes == ["1280x800", "1280x800"]


def text_rows(image: Image.Image) -> list[bool]:
    """Which of the rows of 16 pixels have something bright in them."""
    grey = image.convert("L")
    rows = np.asarray(grey)[: grey.height // 16 * 16].reshape(-1, 16 * grey.width)
    return [bool(row.max() > 100) for row in rows]


def test_the_console_is_seen(vm: GpuGuest) -> None:
    vm.run(r"printf '\033[2J\033[H\033[?25l' > /dev/tty0")
    vm.wait_screen(lambda image: not any(text_rows(image)))
    vm.run("echo one > /dev/tty0; echo > /dev/tty0; echo three > /dev/tty0")
    image = vm.wait_screen(lambda image: text_rows(image)[2])
    assert text_rows(image)[:4] == [True, False, True, False]
    assert image.size == (1280, 800)


def test_vulkaninfo_finds_venus(vm: GpuGuest) -> None:
    summary = vm.run("vulkaninfo --summary")
    device = re.search(r"deviceName += (.*)", summary)
    assert device is not None
    assert device[1] == f"Virtio-GPU Venus ({vm.gpu.about['device']})"
    assert "DRIVER_ID_MESA_VENUS" in summary


def test_compute_and_memory(vm: GpuGuest, program: Callable[[str], Path]) -> None:
    """The same bytes as on the bare driver; guest and host see each other's writes."""
    check_compute(vm, program("compute"))


def test_rendering(vm: GpuGuest, program: Callable[[str], Path]) -> None:
    check_rendering(vm, program("render"))


def test_two_screens_show_two_pictures(vm: GpuGuest) -> None:
    vm.guest.send("pattern ff2000 0080ff")
    vm.guest.wait_line("^shown")
    vm.wait_pixel((640, 400), (0xFF, 0x20, 0x00))
    vm.wait_pixel((640, 400), (0x00, 0x80, 0xFF), index=1)
    # The corner, in the inverse colour.
    assert vm.screen(0).getpixel((31, 15)) == (0x00, 0xDF, 0xFF)
    assert vm.screen(0).getpixel((32, 15)) == (0xFF, 0x20, 0x00)
    assert vm.screen(1).getpixel((0, 0)) == (0xFF, 0x7F, 0x00)
    vm.run("")


def test_the_cursor_is_where_the_guest_puts_it(vm: GpuGuest) -> None:
    """Linux gives its top left corner, which may be outside the screen."""
    vm.guest.send("cursor 7 9")
    vm.guest.wait_line("^shown")
    cursor = vm.wait_update(lambda update: update.cursor is not None).cursor
    assert cursor is not None
    assert (cursor.hot_x, cursor.hot_y) == (7, 9)
    assert cursor.pixels[20, (8, 24, 40)].tolist() == [0xFFFF0000, 0x80008000, 0]

    def at(place: tuple[int, int], update: Update) -> bool:
        return update.cursor_position == place

    for place in ((100, 50), (-5, -40), (1275, 790)):
        vm.guest.send("{} {}".format(*place))
        vm.wait_update(partial(at, place))
    vm.run("end")
    # The cursor goes with the program.
    vm.wait_update(lambda update: update.cursor is None)


def test_a_blob_is_shown_without_a_copy(vm: GpuGuest) -> None:
    """Vulkan renders into memory that is the screen."""
    check_blob_on_screen(vm)


def test_a_snapshot_of_a_running_machine_is_refused_with_a_sentence(vm: GpuGuest) -> None:
    said = vm.guest.monitor("human-monitor-command", **{"command-line": "savevm one"})
    assert "non-migratable device" in said
    assert "vhost-user" in said
    vm.run("")


def test_a_viewer_resizes_the_guest(vm: GpuGuest) -> None:
    vm.display[0].request_size(Size(1024, 640))
    vm.run(
        "until [ $(head -qn1 /sys/class/drm/card0-Virtual-1/modes) = 1024x640 ];"
        " do usleep 50000; done"
    )
    vm.guest.send("pattern 123456")
    vm.guest.wait_line("^screen 0: 1024x640")
    vm.guest.wait_line("^shown")
    vm.wait_pixel((100, 100), (0x12, 0x34, 0x56))
    assert vm.screen().size == (1024, 640)
    vm.run("")


def test_three_hundred_maps(vm: GpuGuest) -> None:
    assert value(vm.run("virtgpu maps 300"), "maps") == "300 ok"


def test_what_maps_and_fences_cost(vm: GpuGuest) -> None:
    text = vm.run("virtgpu time")
    assert len(re.findall(r"^time: .* p50 [\d.]+ us, p99 [\d.]+ us$", text, re.MULTILINE)) == 3
    print(text)


@pytest.fixture
def typing(vm: GpuGuest) -> Iterator[None]:
    """What viewers do reaches the guest by QEMU's monitor."""
    nowhere = OutputOptions(vnc=None, web=None)
    with Outputs(vm.display, nowhere, vm.gpu.runner.figures) as outputs:
        Monitor(str(vm.guest.input_socket), vm.display, outputs).start()
        yield
        vm.display.connect_input(None)


@pytest.mark.usefixtures("typing")
def test_keys_arrive(vm: GpuGuest) -> None:
    vm.guest.print_typed_line()
    # h, e, y, shift+1, enter
    for code in (35, 18, 21):
        vm.display[0].send_input([Key(code, True), Key(code, False)])
    vm.display[0].send_input([Key(42, True), Key(2, True), Key(2, False), Key(42, False)])
    vm.display[1].send_input([Key(28, True), Key(28, False)])
    assert vm.guest.wait_line("guest: done")[:-1] == ["hey!"]


ENTER = 28
SENTENCE = "the quick brown fox jumps over the lazy dog, and 0123456789 more; again and again"


@pytest.mark.usefixtures("typing")
def test_no_key_of_those_typed_without_a_pause_is_lost(vm: GpuGuest) -> None:
    vm.guest.print_typed_line()
    keys = [CODE_OF_KEYSYM[ord(each)] for each in SENTENCE] + [ENTER]
    for code in keys:
        vm.display[0].send_input([Key(code, True), Key(code, False)])
    assert vm.guest.wait_line("guest: done")[:-1] == [SENTENCE]


@pytest.mark.usefixtures("typing")
def test_the_pointer_arrives(vm: GpuGuest) -> None:
    vm.run("dev=$(dirname $(dirname $(grep -l Tablet /sys/class/input/event*/device/name)))")
    vm.run("exec 9< /dev/input/$(basename $dev); cat <&9 > /tmp/events & pid=$!; exec 9<&-")
    vm.display[1].send_input([PointerMove(ABSOLUTE_MAX // 2, 1000)])
    vm.display[1].send_input([PointerButton(Button.LEFT, True)])
    vm.run("until [ $(stat -c %s /tmp/events) -ge $((5 * 24)) ]; do usleep 20000; done; kill $pid")
    data = base64.b64decode(vm.run("base64 /tmp/events"))
    events = {(kind, code): value for _, _, kind, code, value in struct.iter_unpack("<qqHHi", data)}
    absolute, key, button_left = 3, 1, 0x110
    # The middle of the right screen, seen from the left edge of the left one.
    left, right = (screen.surface.size for screen in vm.display if screen.surface is not None)
    across = (left.width + right.width / 2) / (left.width + right.width)
    assert events[absolute, 0] == pytest.approx(ABSOLUTE_MAX * across, abs=2)
    down = right.height / max(left.height, right.height)
    assert events[absolute, 1] == pytest.approx(1000 * down, abs=2)
    assert events[key, button_left] == 1


def test_garbage_poisons_its_context_alone(vm: GpuGuest) -> None:
    assert value(vm.run("virtgpu garbage 20"), "garbage") == "20 survived"
    assert value(vm.run("render 5"), "frames") == "5"


def test_a_program_killed_while_it_renders(vm: GpuGuest) -> None:
    for _ in range(3):
        vm.run("render 0 > /tmp/frames & pid=$!")
        vm.run("until grep -q 'frame 20' /tmp/frames; do usleep 20000; done; kill -9 $pid; wait")
    assert value(vm.run("render 5"), "frames") == "5"


def test_the_driver_is_unloaded_and_loaded(vm: GpuGuest) -> None:
    for _ in range(2):
        vm.run("echo 0 > /sys/class/vtconsole/vtcon1/bind; rmmod virtio_gpu")
        vm.run("load")
        assert "frames: 5" in vm.run("render 5")
        vm.run("echo back > /dev/tty0")
        vm.wait_screen(lambda image: image.size == (1024, 640))


def test_a_paused_machine_goes_on(vm: GpuGuest) -> None:
    vm.run("render 0 > /tmp/frames & pid=$!")
    vm.run("until grep -q 'frame 10' /tmp/frames; do usleep 20000; done")
    for _ in range(3):
        vm.guest.monitor("stop")
        vm.guest.monitor("cont")
    vm.run("lines() { wc -l < /tmp/frames; }; before=$(lines)")
    vm.run("until [ $(lines) -gt $((before + 3)) ]; do usleep 20000; done")
    vm.run("kill $pid; wait")
