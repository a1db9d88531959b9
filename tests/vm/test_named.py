"""Machines in the background, and what can be asked of them by their names."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from guest_vm import BOOT_SECONDS
from initramfs import Tree, build
from named_machines import Machines
from PIL import Image

from hesper.cli._daemon import run_apart
from hesper.cli._machines import wake
from hesper.display.keys import CODE_OF_KEYSYM
from hesper.vm import registry
from hesper.vm.chords import chord, typed
from hesper.vm.cloud import own_key
from hesper.vm.devices import parse_shares, usb_arguments

LOOK_SECONDS = 0.1
TYPING_SECONDS = 10.0
"""For what has been typed to be done."""


def test_a_machine_in_the_background_is_known_by_its_name(tree: Tree, machines: Machines) -> None:
    folder = machines.folder
    initrd, disk, shared = folder / "initrd", folder / "my disk.img", folder / "shared"
    build(tree, initrd, modules=["virtio_blk", "vfat", "nls_cp437", "nls_ascii"])
    disk.write_bytes(bytes(1 << 20))
    shared.mkdir()
    said = machines.start(
        *("--kernel", tree.kernel, "--initrd", initrd, "--append", "console=tty0 quiet panic=-1"),
        *(disk, "--cloud", "--snapshot", "--share", shared, "--scanouts", "2"),
        *("--qmp", folder / "monitor"),
    )
    assert "my-disk runs in the background" in said
    assert machines.hesper("list").startswith("my-disk  running  ")
    assert f"qmp: {folder}/monitor" in machines.hesper("show", "my-disk")
    assert stat.S_ISSOCK((folder / "monitor").stat().st_mode)
    # Its console is on the screen, and takes what is typed.
    orders = (
        "mount -t 9p -o trans=virtio share /root",
        "mkdir -p /seed; mount -t vfat $(findfs LABEL=CIDATA) /seed; cp /seed/* /root",
        "dd if=/dev/urandom of=/dev/vda bs=4096 count=1; echo Done > /root/done",
    )
    type_until(machines, "; ".join(orders), shared / "done")
    assert (shared / "user-data").read_text().startswith("#cloud-config\n{")
    told = json.loads((shared / "user-data").read_text().partition("\n")[2])
    assert told["packages"] == ["mesa-vulkan-drivers", "vulkan-tools"]
    assert told["users"][0]["plain_text_passwd"]
    assert json.loads((shared / "meta-data").read_text())["instance-id"] == "hesper-my disk"
    pictures = machines.hesper("screenshot", "my-disk", folder / "shot.png").split()
    assert pictures == [f"{folder}/shot.png", f"{folder}/shot-2.png"]
    assert Image.open(pictures[0]).size == (1280, 800)
    assert "no machine other: there are my-disk" in machines.hesper("show", "other", status=1)
    machines.hesper("stop", "my-disk", "--now")
    assert machines.hesper("list") == ""
    assert disk.read_bytes() == bytes(1 << 20)


def type_until(machines: Machines, order: str, done: Path) -> None:
    """Type a line, again and again while nothing comes of it: the guest may not listen yet."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        machines.hesper("send-key", "my-disk", "ctrl-u")
        machines.hesper("send-key", "my-disk", "--text", order, "enter")
        again = time.monotonic() + TYPING_SECONDS
        while time.monotonic() < again:
            if done.exists() and done.read_bytes():
                return
            time.sleep(LOOK_SECONDS)
        assert time.monotonic() < deadline, list(done.parent.iterdir())


def test_a_machine_that_does_not_start_says_why(machines: Machines) -> None:
    disk = machines.folder / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    (machines.qemu).write_text(
        "#!/bin/sh\n"
        'case "$*" in --version) echo "QEMU emulator version 11.1.3";;\n'
        "'-device help') echo 'name \"vhost-user-test-device-pci\"';;\n"
        "'-object help') echo memory-backend-memfd;;\n"
        "*) echo no such thing >&2; exit 3;; esac\n"
    )
    options = ("--daemon", "--qemu", machines.qemu, "--accel", "tcg", "--audio", "none")
    said = machines.hesper(disk, *options, "--vnc", "off", "--web", "off", status=1)
    assert "no such thing" in said
    assert "disk has not started" in said


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert registry.name_for(Path("/x/debian 13 (new).qcow2"), set()) == "debian-13-new"
    assert registry.name_for(Path("a.img"), {"a", "a-2"}) == "a-3"
    assert registry.name_for(Path("..img"), set()) == "machine"
    for name in ("", "../x", ".hidden", "a b", "x" * 41):
        with pytest.raises(registry.MachineError, match="is no name"):
            registry.ask(name, "show")


def test_a_guest_is_woken_by_its_power_button(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it to end, as when it is stopped."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(registry, "COMMON", tmp_path)
    asked: list[dict[str, object]] = []

    def answer() -> None:
        connection, _ = door.accept()
        with connection, connection.makefile("rwb") as file:
            asked.append(json.loads(file.readline()))
            file.write(b"{}\n")

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(registry.socket_of("sleeper")))
        door.listen()
        machine = threading.Thread(target=answer)
        machine.start()
        wake("sleeper")
        machine.join()
    assert asked == [{"ask": "stop"}]


def test_a_folder_that_others_write_in_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(registry, "COMMON", tmp_path)
    assert registry.machines_folder().parent.parent == tmp_path
    registry.machines_folder().chmod(0o777)
    with pytest.raises(registry.MachineError, match="not this user's alone"):
        registry.names()


def test_keys_are_written_as_people_do() -> None:
    control, alt, f2, enter = 29, 56, 60, 28
    assert chord("Ctrl-Alt-F2") == [control, alt, f2]
    assert chord("enter") == chord("ret") == [enter]
    assert typed("aA\n") == [[30], [42, 30], [enter]]
    assert all(typed(chr(letter)) for letter in range(32, 127))
    assert typed("~")[0][1] == CODE_OF_KEYSYM[ord("~")]
    for wrong in ("ctrl-", "nokey"):
        with pytest.raises(ValueError, match="there is no key"):
            chord(wrong)
    with pytest.raises(ValueError, match="cannot be typed"):
        typed("é")


def test_folders_and_usb_devices(tmp_path: Path) -> None:
    first, second = parse_shares([str(tmp_path), f"{tmp_path}:ro"])
    assert (first.tag, second.tag, first.read_only, second.read_only) == (
        *("share", "share2"),
        *(False, True),
    )
    assert second.arguments()[1].endswith(",readonly=on")
    with pytest.raises(ValueError, match="there is no such folder"):
        parse_shares(["/nowhere"])
    assert usb_arguments("046d:C52b")[1] == "usb-host,vendorid=0x046d,productid=0xC52b"
    assert usb_arguments("1.12")[1] == "usb-host,hostbus=1,hostaddr=12"
    with pytest.raises(ValueError, match="VENDOR:PRODUCT"):
        usb_arguments("mouse")


def test_keys_of_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_key() == ""
    (tmp_path / ".ssh").mkdir()
    public = tmp_path / ".ssh" / "id_ed25519.pub"
    public.write_text("ssh-ed25519 AAAA me\n")
    assert own_key() == own_key(public) == "ssh-ed25519 AAAA me"
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    with pytest.raises(ValueError, match="is no public key"):
        own_key(tmp_path / "private")


def test_the_log_of_a_machine_is_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the screens' password and token in it, and may be there from before."""
    log = tmp_path / "mine.log"
    log.write_text("old")
    log.chmod(0o644)
    monkeypatch.setattr(registry, "log_of", lambda _: log)
    before = os.umask(0)
    try:
        with pytest.raises(SystemExit):
            run_apart("mine", ["vm", str(tmp_path / "none.img")])
    finally:
        os.umask(before)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "none.img" in log.read_text()
