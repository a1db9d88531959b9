"""An image made without root and without mounting anything, on a Debian or something like it.

mmdebstrap makes the file system as an archive; `mke2fs -d` turns it into ext4 inside a GPT image
whose other partition holds GRUB for UEFI, which finds kernels by the links Debian keeps.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hesper.portable import architecture
from hesper.vm.guest_image import (
    ARCHITECTURES,
    GRUB,
    LABEL,
    MEBI,
    ImageError,
    ImageOptions,
    Step,
    preferences,
    write_files,
)

SECTOR = 512
EFI_START = MEBI
EFI_SIZE = 48 * MEBI
ROOT_START = EFI_START + EFI_SIZE
END_RESERVE = MEBI
"""For the second partition table."""

_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "mformat": "mtools",
    "mcopy": "mtools",
    "tar": "tar",
}

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_QEMU_USER = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}


def is_there() -> bool:
    """Whether this machine has what it takes above all."""
    return shutil.which("mmdebstrap", path=_path()) is not None


def check(options: ImageOptions) -> None:
    """Raise `ImageError` for what is missing here."""
    foreign = architecture() != ARCHITECTURES[options.architecture]
    _check_tools(foreign=foreign)
    if foreign:
        _check_emulator(options.architecture)


def make(options: ImageOptions, work: Path, disk: Path, step: Step, detail: Step) -> None:
    """Make the image in `disk`.  Raises `ImageError`."""
    step("installing Debian (some minutes)")
    _make_root(options, work, detail)
    step("making the file system")
    _make_disk(options, work, disk, detail)


def _path() -> str:
    """Where programs are looked for: Debian does not lead users to mke2fs and sfdisk."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _check_tools(*, foreign: bool) -> None:
    needed = dict(_TOOLS)
    if os.geteuid() != 0:
        needed["fakeroot"] = "fakeroot"
    if foreign:
        # By which mmdebstrap sees whether programs of that architecture run here.
        needed["arch-test"] = "arch-test"
    path = _path()
    missing = sorted({needed[tool] for tool in needed if shutil.which(tool, path=path) is None})
    if missing:
        raise ImageError(
            f"missing: {', '.join(missing)}; install them (Debian: apt install"
            f" {' '.join(missing)}), or let Debian's installer make it: --installer"
        )


def _check_emulator(wanted: str) -> None:
    """Raise `ImageError` unless programs of that architecture, which is not ours, run here."""
    handler = _BINFMT / _QEMU_USER[wanted]
    try:
        works = handler.read_text(encoding="utf-8").startswith("enabled")
    except OSError:
        works = False
    if not works:
        raise ImageError(
            f"programs for {wanted} do not run here: install qemu-user-static (from Debian 13 on:"
            " qemu-user-binfmt), and make sure that binfmt_misc is mounted; where no systemd runs,"
            f" as in a container, also: cp /usr/lib/binfmt.d/{handler.name}.conf {_BINFMT}/register"
        )


def _run(command: Sequence[str | Path], detail: Step, *, text: str = "") -> None:
    """Run a program, passing on what it says.  Raises `ImageError` when it fails."""
    try:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, "PATH": _path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ImageError(f"cannot run {command[0]}: {error.strerror}") from None
    said: list[str] = []
    if process.stdin is not None and process.stdout is not None:
        process.stdin.write(text)
        process.stdin.close()
        for line in process.stdout:
            said.append(line.rstrip())
            detail(said[-1])
    if process.wait() != 0:
        last = "\n".join(said[-15:])
        raise ImageError(f"{command[0]} has failed:\n{last}")


def _make_root(options: ImageOptions, work: Path, detail: Step) -> None:
    """Make `root.tar` and the boot loader in `work`."""
    platform, program, package = GRUB[options.architecture]
    write_files(options, work / "files.tar")
    packages = [*options.chosen_packages, package, "grub-common"]
    make_loader = (
        f"grub-mkstandalone --format={platform} --output=/root/{program}"
        " boot/grub/grub.cfg=/root/grub.cfg"
    )
    command: list[str | Path] = [
        "mmdebstrap",
        # What apt and dpkg do: else nothing is said for minutes, unless there is a terminal.
        "--verbose",
        "--variant=minbase",
        f"--architectures={options.architecture}",
        f"--include={','.join(packages)}",
        f"--customize-hook=tar-in {work}/files.tar /",
        '--customize-hook=chroot "$1" sh /root/setup',
        f'--customize-hook=chroot "$1" {make_loader}',
        f"--customize-hook=copy-out /root/{program} {work}",
        f'--customize-hook=cd "$1"/root && rm setup grub.cfg {program}',
    ]
    if options.backports:
        command.append(f"--setup-hook={_backports_hook(options)}")
    command += [options.suite, work / "root.tar"]
    if options.mirror:
        command.append(options.mirror)
    _run(command, detail)


def _backports_hook(options: ImageOptions) -> str:
    """Return shell that adds the backports, and prefers their kernel and Mesa."""
    line = f"s/ {options.suite} main.*/ {options.backports} main/p"
    pin = preferences(options).replace("\n", "\\n")
    return (
        f'sed -n "{line}" "$1"/etc/apt/sources.list | head -n 1'
        ' > "$1"/etc/apt/sources.list.d/backports.list'
        f' && printf "{pin}" > "$1"/etc/apt/preferences.d/hesper'
    )


def _make_disk(options: ImageOptions, work: Path, disk: Path, detail: Step) -> None:
    """Put the pieces into a partitioned image."""
    with disk.open("xb") as file:
        file.truncate(options.size)
    root_size = options.size - ROOT_START - END_RESERVE
    _run(
        ["sfdisk", "--quiet", disk],
        detail,
        text=(
            "label: gpt\n"
            f"start={EFI_START // SECTOR}, size={EFI_SIZE // SECTOR}, type=uefi, name=efi\n"
            f"start={ROOT_START // SECTOR}, size={root_size // SECTOR}, type=linux, name=root\n"
        ),
    )
    efi = f"{disk}@@{EFI_START}"
    program = GRUB[options.architecture][1]
    _run(["mformat", "-i", efi, "-T", str(EFI_SIZE // SECTOR), "-F", "::"], detail)
    _run(["mmd", "-i", efi, "::/EFI", "::/EFI/BOOT"], detail)
    _run(["mcopy", "-i", efi, work / program, f"::/EFI/BOOT/{program}"], detail)
    # Unpacked and read in one fake root, which remembers whose the files are.
    script = (
        'mkdir "$1"/root && tar -C "$1"/root --exclude="./dev/*" -xf "$1"/root.tar && '
        'mke2fs -q -t ext4 -L "$2" -E "offset=$3" -d "$1"/root "$4" "$5"'
    )
    fake = [] if os.geteuid() == 0 else ["fakeroot"]
    arguments = [str(work), LABEL, str(ROOT_START), str(disk), f"{root_size >> 10}k"]
    _run([*fake, "sh", "-c", script, "sh", *arguments], detail)
