"""Reboots, crashes and kills, with a real guest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_vm import PATIENCE, Exchange, GpuGuest, Guest, exchange, gpu_guest
from initramfs import Tree
from PIL import Image
from serving import run
from vnc_client import Viewer

from hesper.display.scanout import Size
from hesper.gpu.runner import GpuOptions
from hesper.vhost_user_gpu import VhostUserGpu
from hesper.vm.machine import monitor_arguments
from open_files import open_files

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")


@pytest.fixture(scope="module")
def programs(program: Callable[[str], Path]) -> list[Path]:
    """What the guests here run."""
    return [program("render"), program("virtgpu")]


def keep_rendering(guest: Guest) -> None:
    """Start a program that renders until it is killed, and wait for it to be at it."""
    guest.run("render 0 > /tmp/frames & pid=$!")
    guest.run("until grep -q 'frame 10' /tmp/frames; do usleep 20000; done")


def test_reboots_while_rendering(tree: Tree, programs: list[Path]) -> None:
    """Each with live maps; the last has as many descriptors as the first."""
    with gpu_guest(tree, programs=programs) as vm:
        counts = []
        for _ in range(5):
            keep_rendering(vm.guest)
            counts.append(len(open_files()))
            vm.guest.monitor("system_reset")
            vm.guest.wait_ready()
        assert "frames: 5" in vm.run("render 5")
        assert counts[-1] <= counts[0] + 1
        vm.run("echo shown > /dev/tty0")
        vm.wait_screen(lambda image: image.getextrema() != ((0, 0), (0, 0), (0, 0)))


def test_resets_and_pauses_while_programs_map(tree: Tree, programs: list[Path]) -> None:
    """QEMU does not survive a request while the device stands still: none may reach it."""

    def keep_mapping(count: int) -> None:
        vm.run(f"(while virtgpu maps {count}; do :; done) > /tmp/maps & pid=$!")
        vm.run("until grep -q ok /tmp/maps; do usleep 20000; done")

    with gpu_guest(tree, programs=programs) as vm:
        for _ in range(3):
            keep_mapping(300)
            vm.guest.monitor("system_reset")
            vm.guest.wait_ready()
        keep_mapping(3)
        for width in range(1000, 1080, 8):
            vm.guest.monitor("stop")
            vm.display[0].request_size(Size(width, 700))
            vm.guest.monitor("cont")
        vm.run("kill $pid; wait; until ! pgrep virtgpu > /tmp/pids; do usleep 20000; done")
        assert "maps: 300 ok" in vm.run("virtgpu maps 300")
        vm.run("until grep -q 1072x700 /sys/class/drm/card0-Virtual-1/modes; do usleep 20000; done")


def test_a_machine_with_a_desktops_worth_of_maps_goes_on_after_a_pause(
    tree: Tree, programs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """QEMU cannot start the device again, so that goes on by itself, until the machine is reset."""
    files = ["/tmp/a", "/tmp/b", "/tmp/c"]
    with gpu_guest(tree, programs=programs) as vm:
        for file in files:
            vm.run(f"render 0 > {file} &")
            vm.run(f"until grep -q 'frame 10' {file}; do usleep 20000; done")
        for _ in range(2):
            vm.guest.monitor("stop")
            vm.guest.monitor("cont")
            for file in files:
                vm.run(f"before=$(wc -l < {file})")
                vm.run(f"until [ $(wc -l < {file}) -gt $((before + 3)) ]; do usleep 20000; done")
            # A new program, with new maps.
            assert "frames: 2" in vm.run("render 2")
        assert caplog.text.count("cannot start the GPU again after a pause") == 2
        vm.guest.monitor("system_reset")
        vm.guest.wait_ready()
        assert "frames: 5" in vm.run("render 5")


def test_a_guest_that_sleeps_wakes_with_its_gpu(tree: Tree, programs: list[Path]) -> None:
    """Programs go on with what they had there, and new ones begin."""
    with gpu_guest(tree, programs=programs) as vm:
        # Which kind of sleep there is is the machine's to say.
        assert vm.run("cat /sys/power/mem_sleep").split() == ["[s2idle]"]
        keep_rendering(vm.guest)
        vm.guest.sleep_and_wake()
        vm.run("before=$(wc -l < /tmp/frames)")
        vm.run("until [ $(wc -l < /tmp/frames) -gt $((before + 10)) ]; do usleep 20000; done")
        assert "frames: 5" in vm.run("render 5")
        vm.run("echo awake > /dev/tty0")
        vm.wait_screen(lambda image: image.getextrema() != ((0, 0), (0, 0), (0, 0)))


def test_a_vmm_that_crashes_is_followed_by_another(tree: Tree, programs: list[Path]) -> None:
    with (
        exchange(tree) as place,
        VhostUserGpu(place.folder / "gpu", GpuOptions(), os.abort) as gpu,
    ):
        for _ in range(2):
            guest = Guest(place, programs)
            with guest:
                keep_rendering(guest)
                guest.kill()
            (place.folder / "qmp").unlink(missing_ok=True)
        with Guest(place, programs) as guest:
            vm = GpuGuest(guest, gpu)
            assert "frames: 5" in vm.run("render 5")


@contextlib.contextmanager
def hesper_gpu(
    place: Exchange, *arguments: str, vnc: str = "off", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """`hesper gpu` in a process of its own."""
    command = [*HESPER, "gpu", "--socket", str(place.folder / "gpu"), "--vnc", vnc]
    process = subprocess.Popen(
        [*command, "--web", "off", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready on ")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def test_hesper_killed_while_the_guest_renders(tree: Tree, programs: list[Path]) -> None:
    """QEMU and the guest live on; what has no answer yet will have none."""
    with exchange(tree) as place, hesper_gpu(place) as hesper, Guest(place, programs) as guest:
        keep_rendering(guest)
        hesper.send_signal(signal.SIGKILL)
        hesper.wait(60)
        assert guest.monitor("query-status")["status"] == "running"
        # The machine without its GPU is a machine.
        assert "42" in guest.run("echo $((6 * 7))")
        assert guest.running
        guest.monitor("quit")
        assert guest.wait_ended() == 0


def test_viewers_have_a_keyboard_where_somebody_else_starts_qemu(tree: Tree) -> None:
    with exchange(tree) as place:
        door = place.folder / "vnc"
        told = monitor_arguments(place.inside(place.folder / "gpu.monitor"))
        with hesper_gpu(place, vnc=f"unix:{door}"), Guest(place, extra=told) as guest:
            guest.print_typed_line()
            run(type_letters(door, "it works\r"))
            assert guest.wait_line("guest: done")[:-1] == ["it works"]


async def type_letters(door: Path, text: str) -> None:
    """Type by VNC, as fast as can be."""
    viewer = await Viewer.connect(door)
    for letter in text:
        keysym = 0xFF0D if letter == "\r" else ord(letter)
        viewer.key(True, keysym)
        viewer.key(False, keysym)
    # The server has read them all before it answers what comes after them.
    viewer.request(incremental=False)
    await viewer.update()
    await viewer.close()


def test_hesper_ends_in_order(tree: Tree, programs: list[Path]) -> None:
    with exchange(tree) as place, hesper_gpu(place) as hesper:
        with Guest(place, programs) as guest:
            keep_rendering(guest)
            hesper.terminate()
            assert hesper.wait(60) == 0
            assert guest.running
        assert not (place.folder / "gpu").exists()


def test_a_second_gpu_shows_the_desktop(tree: Tree, programs: list[Path]) -> None:
    """Hesper's has no screens then, and renders all the same (`hesper vm --dual-gpu`)."""
    with gpu_guest(tree, scanouts=0, programs=programs, extra=("-device", "virtio-gpu-pci")) as vm:
        assert "KMS disabled" in vm.run("dmesg | grep drm")
        assert vm.run("ls /sys/class/drm | grep Virtual").split() == ["card0-Virtual-1"]
        assert "frames: 5" in vm.run("render 5")


@pytest.mark.parametrize("page", [4096, 16384])
def test_blobs_have_the_hosts_pages(tree: Tree, program: Callable[[str], Path], page: int) -> None:
    """16 KiB, as Apple Silicon has, under a guest with 4 KiB: its kernel is told, and heeds it.

    Mesa does from 26.2.4 on.
    """
    with (
        exchange(tree) as place,
        hesper_gpu(place, HESPER_PAGE_SIZE=str(page)),
        Guest(place, [program("virtgpu")]) as guest,
    ):
        assert "+blob_alignment" in guest.run("dmesg | grep drm")
        assert f"align: {page}" in guest.run("virtgpu align")
        assert "maps: 100 ok" in guest.run("virtgpu maps 100")


def test_pictures_and_videos_for_scripts(tree: Tree, tmp_path: Path) -> None:
    picture, video = tmp_path / "screen.png", tmp_path / "screen.avi"
    arguments = ("--screenshot", str(picture), "--video", str(video))
    with exchange(tree) as place, hesper_gpu(place, *arguments) as hesper:
        with Guest(place) as guest:
            guest.run("echo here > /dev/tty0")
            hesper.send_signal(signal.SIGUSR1)
            deadline = time.monotonic() + PATIENCE
            while not picture.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert Image.open(picture).size == (1280, 800)
        hesper.terminate()
        assert hesper.wait(PATIENCE) == 0
    assert video.read_bytes()[:4] == b"RIFF"
    assert video.stat().st_size > 10_000
