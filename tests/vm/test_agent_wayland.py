"""The clipboard of Wayland desktops, sway and weston, by the programs that images have for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_desk import Desk
from guest_vm import PATIENCE, TREE_DEVICE, GpuGuest, gpu_guest
from initramfs import Tree
from serving import run

from hesper.vm import guest_clipboard
from hesper.vm.desktops import DESKTOPS

TEXT = "gr\xfc\xdfe aus Deutschland \N{SNOWMAN}"
SWAY = "LIBSEAT_BACKEND=seatd WLR_BACKENDS=drm WLR_RENDERER=pixman WLR_LIBINPUT_NO_DEVICES=1"
WESTON = "weston --backend=drm --renderer=pixman --idle-time=0 --socket=wayland-1"
PROGRAM = Path(guest_clipboard.__file__)


@contextlib.contextmanager
def desk(tree: Tree) -> Iterator[Desk]:
    """A guest with what sessions want."""
    made = Desk()
    with gpu_guest(
        tree, extra=TREE_DEVICE, has_agent=True, beside=made.beside, programs=[PROGRAM]
    ) as vm:
        made.vm = vm
        vm.enter_tree()
        # It makes the link to the port, and says which devices are keyboards.
        vm.run("export SYSTEMD_IGNORE_CHROOT=1 WAYLAND_DISPLAY=wayland-1")
        vm.run("in_tree /usr/lib/systemd/systemd-udevd --daemon")
        vm.run("in_tree udevadm trigger; in_tree udevadm settle")
        vm.run("in_tree seatd > /tmp/seatd.log 2>&1 &")
        vm.run("until [ -S /root-in-tree/run/seatd.sock ]; do usleep 20000; done")
        yield made


def start(desk: Desk, session: str) -> None:
    """Start a session, and wait for what shares its clipboard."""
    desk.vm.run(f"in_tree env LC_ALL=C.UTF-8 {session} > /tmp/session.log 2>&1 &")
    deadline = time.monotonic() + PATIENCE
    while not (desk.outputs.clipboard and desk.outputs.clipboard.has_guest):
        assert time.monotonic() < deadline, desk.vm.run("cat /tmp/*.log")
        time.sleep(0.1)


def start_sway(vm: GpuGuest) -> str:
    vm.run("cp /bin/guest_clipboard.py /root-in-tree/tmp/")
    order = "exec python3 /tmp/guest_clipboard.py"
    vm.run(f"printf 'xwayland disable\\n{order}\\n' > /tmp/sway.conf")
    return f"{SWAY} sway --config /tmp/sway.conf"


def start_weston(vm: GpuGuest) -> str:
    # Not with every kernel can files be made in the folders of an overlay over 9p.
    vm.run("mount -t tmpfs keymaps /root-in-tree/var/lib/xkb")
    # systemd makes these.
    vm.run("mkdir -p -m 1777 /root-in-tree/run/spice-vdagentd /tmp/.X11-unix")
    vm.run("in_tree spice-vdagentd -x -X -f -u /dev/null > /tmp/vdagentd.log 2>&1 &")
    vm.run(
        "until [ -S /root-in-tree/run/spice-vdagentd/spice-vdagent-sock ]; do usleep 20000; done"
    )
    config = DESKTOPS["weston"].files["etc/xdg/weston/weston.ini"].replace("\n", "\\n")
    vm.run(f"printf '{config}' > /tmp/weston.ini")
    return f"{WESTON} --config=/tmp/weston.ini"


@pytest.mark.parametrize("prepare", [start_sway, start_weston])
def test_text_is_copied_both_ways(tree: Tree, prepare: Callable[[GpuGuest], str]) -> None:
    with desk(tree) as made:
        start(made, prepare(made.vm))
        run(copy_both_ways(made))


async def copy_both_ways(desk: Desk) -> None:
    vm = desk.vm
    viewer = await desk.viewer()
    vm.run(f"printf '{TEXT}' | in_tree wl-copy")
    assert await desk.copied(viewer) == TEXT
    back = (f"and back: {TEXT}" + "x" * 30_000).encode()
    desk.copy(viewer, back)
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
