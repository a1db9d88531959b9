"""How `hesper vm` ends when QEMU does, with programs that stand for QEMU; no guest is booted."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")
ANSWERS = {
    "--version": "QEMU emulator version 11.1.3",
    "-device help": 'name "vhost-user-test-device-pci", bus PCI',
    "-object help": "memory-backend-memfd",
}


def run_vm(folder: Path, ending: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a machine whose QEMU does no more than `ending`, in Python."""
    qemu = folder / "qemu"
    qemu.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"answer = {ANSWERS!r}.get(' '.join(sys.argv[1:]))\n"
        "if answer:\n"
        "    print(answer)\n"
        "else:\n"
        f"    {ending}\n"
    )
    qemu.chmod(0o755)
    disk = folder / "disk.img"
    if not disk.exists():
        disk.write_bytes(bytes(1 << 20))
    options = ("--accel", "tcg", "--audio", "none", "--vnc", "127.0.0.1:0", "--web", "off")
    return subprocess.run(
        [*HESPER, "vm", disk, "--qemu", qemu, *options, *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "TMPDIR": str(folder)},
    )


@pytest.mark.parametrize(
    ("ending", "status", "last"),
    [
        ("sys.exit('qemu: no such thing')", 1, "status=1"),
        ("os.kill(os.getpid(), 9)", 137, "signal=SIGKILL"),
    ],
    ids=["refuses", "killed"],
)
def test_how_qemu_has_ended_is_the_last_line(
    tmp_path: Path, ending: str, status: int, last: str
) -> None:
    done = run_vm(tmp_path, ending)
    assert done.returncode == status
    lines = done.stderr.splitlines()
    assert "QEMU has ended" in lines[-1]
    assert last in lines[-1]
    # What it complains of stands before that, and no screen was promised.
    assert ("qemu: no such thing" in lines[:-1]) == (status == 1)
    assert "VNC" not in done.stdout


HEAD = struct.pack(">4sIQIIQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 50, 0, 1, 1 << 16)
"""Of an image without other files, of a PiB."""


def test_a_disk_does_not_become_what_its_guest_writes_to_it(tmp_path: Path) -> None:
    write = f"open({str(tmp_path / 'disk.img')!r}, 'r+b').write({HEAD!r}); sys.exit('was run')"
    assert "was run" in run_vm(tmp_path, write).stderr
    done = run_vm(tmp_path, write)
    assert done.returncode == 1
    assert "was run" not in done.stderr
    assert "was a disk byte by byte, and begins as an image (qcow2)" in done.stderr


def test_a_disk_that_is_not_written_to_is_not_remembered(tmp_path: Path) -> None:
    assert "was run" in run_vm(tmp_path, "sys.exit('was run')", "--snapshot").stderr
    (tmp_path / "disk.img").write_bytes(HEAD.ljust(1 << 18, b"\0"))
    assert "was run" in run_vm(tmp_path, "sys.exit('was run')").stderr
