"""Debian's own programs in a guest with an X server, for clipboard, size and sound.

Its agent shares the clipboard and sets the screen's size; what it plays is heard.
screen's size, and what it plays is heard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from agent_desk import Desk
from guest_vm import PATIENCE, TREE_DEVICE, gpu_guest
from initramfs import Tree
from serving import run, until

from hesper.display.sound import FRAME, RATE
from hesper.vm.sound import QemuSound

TEXT = "gr\xfc\xdfe aus Deutschland \N{SNOWMAN}"


@pytest.fixture(scope="module")
def desk(tree: Tree) -> Iterator[Desk]:
    """A guest with an X server and both halves of the agent."""
    made = Desk()
    with gpu_guest(
        tree, extra=TREE_DEVICE, has_agent=True, has_sound=True, beside=made.beside
    ) as vm:
        made.vm = vm
        vm.enter_tree()
        # Not with every kernel can files be made in the folders of an overlay over 9p.
        vm.run("mount -t tmpfs keymaps /root-in-tree/var/lib/xkb")
        xorg = "Xorg :0 -ac -noreset -keeptty -logfile /tmp/xorg.txt vt1"
        vm.run(f"in_tree {xorg} > /tmp/xorg.log 2>&1 & x=$!")
        there = "[ -S /tmp/.X11-unix/X0 ]"
        vm.run(f"until {there} || ! kill -0 $x; do usleep 20000; done")
        vm.run(f"{there} || {{ cat /tmp/xorg.log; false; }}")
        # udev makes the link that the agent looks for; here there is none.
        vm.run("grep -H . /sys/class/virtio-ports/*/name")
        vm.run(
            "port=/dev/$(grep -l com.redhat.spice.0 /sys/class/virtio-ports/*/name | cut -d/ -f5)"
        )
        vm.run("mkdir /root-in-tree/run/spice-vdagentd")
        sock = "-S /run/spice-vdagentd/spice-vdagent-sock"
        daemon = f"spice-vdagentd -x -X -d -f -u /dev/null -s $port {sock}"
        vm.run(f"in_tree {daemon} > /tmp/vdagentd.log 2>&1 &")
        there = "[ -S /root-in-tree/run/spice-vdagentd/spice-vdagent-sock ]"
        vm.run(f"until {there}; do usleep 20000; done")
        agent = f"env DISPLAY=:0 spice-vdagent -x -d -s $port {sock}"
        vm.run(f"in_tree {agent} > /tmp/vdagent.log 2>&1 &")
        deadline = time.monotonic() + PATIENCE
        while not (made.outputs.clipboard and made.outputs.clipboard.has_guest):
            assert time.monotonic() < deadline, vm.run("cat /tmp/vdagentd.log /tmp/vdagent.log")
            time.sleep(0.1)
        yield made


def test_text_is_copied_both_ways(desk: Desk) -> None:
    async def scenario() -> None:
        viewer = await desk.viewer()
        # xclip stays, and has the text for whoever pastes.
        xclip = "in_tree env DISPLAY=:0 LC_ALL=C.UTF-8 xclip -selection clipboard"
        desk.vm.run(f"printf '{TEXT}' | {xclip} -in > /dev/null 2>&1")
        assert await desk.copied(viewer) == TEXT
        back = (f"and back: {TEXT}" + "x" * 30_000).encode()
        desk.copy(viewer, back)
        said = f"{xclip} -out 2> /dev/null"
        desk.vm.run(f"until [ $({said} | wc -c) = {len(back)} ]; do usleep 50000; done")
        assert f"and back: {TEXT}xxx" in desk.vm.run(f"{said} | cut -c1-60")
        await viewer.close()

    run(scenario())


def test_x_takes_the_size_that_a_viewer_wants(desk: Desk) -> None:
    async def scenario() -> None:
        viewer = await desk.viewer()
        viewer.set_desktop_size(1003, 712)
        # X looks again when udev tells it to, which is not here.
        desk.vm.run("in_tree env DISPLAY=:0 xrandr > /dev/null")
        await until(lambda: desk.vm.screen().size == (1000, 712))
        # With the GPU's mode, not with one of the agent's, which has no frequency.
        modes = desk.vm.run("in_tree env DISPLAY=:0 xrandr")
        assert "1000x712-0" not in modes
        desk.vm.run("in_tree env DISPLAY=:0 xsetroot -solid '#123456'")
        await until(lambda: desk.vm.screen().getpixel((5, 5)) == (0x12, 0x34, 0x56))
        await viewer.close()

    run(scenario())


def test_what_the_guest_plays_is_heard(desk: Desk) -> None:
    async def scenario() -> None:
        # A card that nobody has set up is mute.
        desk.vm.run("in_tree amixer -q -c 0 sset Master 100% unmute")
        async with QemuSound(desk.vm.guest.sound_socket)() as pieces:
            tone = "speaker-test -D plughw:0 -c 2 -r 48000 -t sine -f 440 -l 0"
            desk.vm.run(f"in_tree {tone} > /tmp/speaker.log 2>&1 & tone=$!")
            try:
                heard = b""
                while len(heard) < RATE * FRAME // 2:
                    heard += await anext(pieces)
            finally:
                desk.vm.run("kill $tone; cat /tmp/speaker.log")
        samples = np.frombuffer(heard, "<i2").reshape(-1, 2).astype(float)
        # It is loud, left or right, and of the pitch that was wanted.
        spectrum = np.abs(np.fft.rfft(samples.sum(axis=1)))
        pitch = spectrum[1:].argmax() + 1
        assert abs(pitch * RATE / len(samples) - 440) < 20
        assert np.abs(samples).max() > 1000

    run(scenario())
