"""`hesper vm` as its user runs it, in the background; its QEMU is the tree's."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from guest_vm import BOOT_SECONDS, Exchange

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()")


class Machines:
    """`hesper vm` with the tree's QEMU, on a folder that both see."""

    def __init__(self, place: Exchange) -> None:
        """`place` holds all that the machines have."""
        self.folder = place.folder
        self.qemu = place.folder / "bin/qemu"
        self.qemu.parent.mkdir()
        # QEMU runs in the tree, where paths are shorter.
        self.qemu.write_text(
            "#!/bin/bash\n"
            f"root={shlex.quote(str(place.tree.root))}\n"
            # What it does with files of a shared folder wants /proc.
            """inside='mount -t proc proc "$0/proc"; exec chroot "$0" qemu-system-x86_64 "$@"'\n"""
            'exec unshare -m -- sh -c "$inside" "$root" "${@//"$root"/}"\n'
        )
        self.qemu.chmod(0o755)

    def hesper(self, *words: str | Path, status: int = 0) -> str:
        """Run `hesper vm`, and return what it says."""
        done = subprocess.run(
            [*HESPER, "vm", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=BOOT_SECONDS,
            env=os.environ | {"XDG_RUNTIME_DIR": str(self.folder), "HOME": str(self.folder)},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *words: str | Path) -> str:
        """Start one in the background."""
        options = ("--qemu", self.qemu, "--accel", "tcg", "--audio", "none", "--memory", "512M")
        screens = ("--vnc", f"unix:{self.folder}/vnc", "--web", "off")
        return self.hesper("--daemon", *options, *screens, *words)
