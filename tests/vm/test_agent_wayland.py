"""The clipboard of a Wayland desktop, by the program that images have for it: under sway."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_desk import Desk
from guest_vm import PATIENCE, TREE_DEVICE, gpu_guest
from initramfs import Tree
from serving import run

from hesper.vm import guest_clipboard

TEXT = "gr\xfc\xdfe aus Deutschland \N{SNOWMAN}"
SWAY = "LIBSEAT_BACKEND=seatd WLR_BACKENDS=drm WLR_RENDERER=pixman WLR_LIBINPUT_NO_DEVICES=1"
PROGRAM = Path(guest_clipboard.__file__)


@pytest.fixture(scope="module")
def desk(tree: Tree) -> Iterator[Desk]:
    """A guest with sway, and the program in its session."""
    made = Desk()
    options = {"has_agent": True, "beside": made.beside, "programs": [PROGRAM]}
    with gpu_guest(tree, extra=TREE_DEVICE, **options) as vm:
        made.vm = vm
        vm.enter_tree()
        vm.run("cp /bin/guest_clipboard.py /root-in-tree/tmp/")
        vm.run("in_tree seatd > /tmp/seatd.log 2>&1 &")
        vm.run("until [ -S /root-in-tree/run/seatd.sock ]; do usleep 20000; done")
        vm.run("printf 'xwayland disable\\n' > /tmp/sway.conf")
        # udev makes the link that the program looks for; here there is none.
        vm.run(
            "port=/dev/$(grep -l com.redhat.spice.0 /sys/class/virtio-ports/*/name | cut -d/ -f5)"
        )
        vm.run('echo "exec python3 /tmp/guest_clipboard.py $port" >> /tmp/sway.conf')
        sway = f"in_tree env LC_ALL=C.UTF-8 {SWAY} sway --config /tmp/sway.conf"
        vm.run(f"{sway} > /tmp/sway.log 2>&1 &")
        deadline = time.monotonic() + PATIENCE
        while not (made.outputs.clipboard and made.outputs.clipboard.has_guest):
            assert time.monotonic() < deadline, vm.run("cat /tmp/sway.log")
            time.sleep(0.1)
        vm.run("export WAYLAND_DISPLAY=wayland-1")
        yield made


def test_text_is_copied_both_ways(desk: Desk) -> None:
    vm = desk.vm

    async def scenario() -> None:
        viewer = await desk.viewer()
        vm.run(f"printf '{TEXT}' | in_tree wl-copy")
        while not viewer.clipboard:
            await viewer.message()
        assert viewer.clipboard.pop(0) == (1 << 27 | 1, b"")
        viewer.clipboard_message(1 << 25 | 1)
        while not viewer.clipboard:
            await viewer.message()
        _, data = viewer.clipboard.pop(0)
        assert zlib.decompress(data)[4:-1].decode() == TEXT
        back = (f"and back: {TEXT}" + "x" * 30_000).encode()
        provided = zlib.compress(struct.pack(">I", len(back) + 1) + back + b"\0")
        viewer.clipboard_message(1 << 28 | 1, provided)
        size = "in_tree wl-paste --no-newline | wc -c"
        vm.run(f"until [ $({size}) = {len(back)} ]; do usleep 50000; done")
        assert vm.run("in_tree wl-paste --no-newline | cut -c1-60").startswith(f"and back: {TEXT}x")
        # It has been given to the guest, and is not offered to viewers as the guest's.
        vm.run("printf again | in_tree wl-copy")
        while not viewer.clipboard:
            await viewer.message()
        assert viewer.clipboard.pop(0) == (1 << 27 | 1, b"")
        assert viewer.clipboard == []
        await viewer.close()

    run(scenario())
