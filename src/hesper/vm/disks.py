"""What a file given to `hesper vm` is: told by its first bytes, which a guest may have written.

So where these would have QEMU open more than the file, its name must say the same; and what a guest
has had byte by byte never becomes an image by them.
"""

from __future__ import annotations

import enum
import struct
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from hesper.vm import raw_disks
from hesper.vm.qcow2 import Qcow2, names_files

_ISO_OFFSET = 0x8001
_X86_KERNEL_OFFSET = 0x202
_ARM_KERNEL_OFFSET = 0x38
_HEAD = _ISO_OFFSET + 8
_GPT_OFFSET = 512
_BOOT_CODE_SIZE = 440
_EFI_PARTITION = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
_EFI_LOOK = 16 << 20
"""Bytes at the beginning of an EFI partition in which its folders are looked for."""
_EFI_PROGRAMS = {b"BOOTX64 EFI": "x86_64", b"BOOTAA64EFI": "aarch64"}
"""Names as FAT has them of what firmware boots by default (UEFI specification, 3.5.1.1)."""


class FileKind(enum.Enum):
    """Kinds of files; the value is QEMU's name for a disk format."""

    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"
    VHDX = "vhdx"
    RAW = "raw"
    ISO = "iso"
    X86_KERNEL = "x86_64"
    ARM_KERNEL = "aarch64"

    @property
    def is_kernel(self) -> bool:
        """Whether it is a Linux kernel."""
        return self in {FileKind.X86_KERNEL, FileKind.ARM_KERNEL}


_MAGIC = (
    (0, b"QFI\xfb", FileKind.QCOW2),
    (0, b"KDMV", FileKind.VMDK),
    (0x40, b"\x7f\x10\xda\xbe", FileKind.VDI),
    (0, b"vhdxfile", FileKind.VHDX),
    (_X86_KERNEL_OFFSET, b"HdrS", FileKind.X86_KERNEL),
    (_ARM_KERNEL_OFFSET, b"ARM\x64", FileKind.ARM_KERNEL),
)


_COMPRESSED = (
    (b"\xfd7zXZ\0", "xz -d"),
    (b"\x1f\x8b", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstd -d"),
    (b"BZh", "bunzip2"),
    (b"PK\x03\x04", "unzip"),
    (b"7z\xbc\xaf\x27\x1c", "7z x"),
)
"""How compressed files begin, and what unpacks them."""


def file_kind(path: Path) -> FileKind:
    """Tell what `path` is; a disk without any mark is raw.

    Raises `OSError` when it cannot be read.
    """
    return _kind(_head(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _kind(head: bytes) -> FileKind:
    # A bootable ISO may look like a disk as well.
    if head[_ISO_OFFSET : _ISO_OFFSET + 5] == b"CD001":
        return FileKind.ISO
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return FileKind.RAW


def check_disk(path: Path) -> FileKind:
    """Tell what kind of disk `path` is.

    Raises `OSError` when it cannot be read, and `ValueError` for what is no disk, or is not called
    what it is.
    """
    head = _head(path)
    for magic, program in _COMPRESSED:
        if head.startswith(magic):
            raise ValueError(f"{path} is compressed: unpack it first ({program})")
    kind = _kind(head)
    if kind.is_kernel:
        raise ValueError(f"{path} is a Linux kernel: say --kernel {path}")
    _check_name(path, kind, head)
    return kind


_SUFFIXES = {
    FileKind.QCOW2: (".qcow2", ".qcow"),
    FileKind.VMDK: (".vmdk",),
    FileKind.VDI: (".vdi",),
    FileKind.VHDX: (".vhdx",),
}
"""How images are called, which say themselves how large their disks are."""
_RAW_SUFFIX = ".raw"


def _check_name(path: Path, kind: FileKind, head: bytes) -> None:
    """Raise `ValueError` for an image that is not called what it is, and could be a guest's work.

    A guest writes what it likes to a disk that is kept as it is, also the head of an image that
    names the host's files, for QEMU to open the next time, or one of any size.  It cannot change
    what the file is called, nor what is remembered of it.  The same is said of a disk that is
    called an image before a guest has it.
    """
    suffix = path.suffix.lower()
    kinds = [each for each, suffixes in _SUFFIXES.items() if suffix in suffixes]
    if kinds and kind is FileKind.RAW:
        raise ValueError(
            f"{path} is called {path.suffix}, and is no such image: if it is a disk byte by byte,"
            " give it another name, as disk.img"
        )
    if kind in kinds or kind not in _SUFFIXES:
        return
    if kind is FileKind.VMDK or (kind is FileKind.QCOW2 and names_files(head)):
        raise ValueError(
            f"{path} is an image that may have other files of this machine opened, which a guest"
            " can make of its disk: if it has come to you as one, give it a name that ends in"
            f" {_SUFFIXES[kind][0]}"
        )
    if suffix == _RAW_SUFFIX or raw_disks.is_known(path):
        was = f"is called {path.suffix}" if suffix == _RAW_SUFFIX else "was a disk byte by byte"
        raise ValueError(
            f"{path} {was}, and begins as an image ({kind.value}), which a guest can make of its"
            " disk to have one of any size: if you have put an image there, give it a name that"
            f" ends in {_SUFFIXES[kind][0]}"
        )


class DiskBoot(NamedTuple):
    """How a disk can be booted, as far as its partition table tells."""

    uefi_only: bool
    """A GUID partition table and no boot code."""
    architecture: str | None
    """The only one that its EFI partition has a boot program for, as QEMU calls it."""


def disk_boot(path: Path, kind: FileKind) -> DiskBoot:
    """Tell how a disk can be booted; nothing is known of those in formats of other programs.

    Raises `OSError` when it cannot be read.
    """
    if kind not in {FileKind.RAW, FileKind.QCOW2}:
        return DiskBoot(False, None)
    with path.open("rb") as file:
        try:
            read = Qcow2(file).read if kind is FileKind.QCOW2 else partial(_read_raw, file)
            return _disk_boot(read)
        except (ValueError, struct.error):
            return DiskBoot(False, None)


def _read_raw(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _disk_boot(read: Callable[[int, int], bytes]) -> DiskBoot:
    head = read(0, _GPT_OFFSET + 512)
    header = head[_GPT_OFFSET:]
    if not header.startswith(b"EFI PART"):
        return DiskBoot(False, None)
    table, count, size = struct.unpack_from("<QII", header, 72)
    if not 128 <= size <= 4096:
        return DiskBoot(False, None)
    entries = read(table * 512, min(count, 128) * size)
    found = set()
    for at in range(0, len(entries) - 127, size):
        if entries[at : at + 16] == _EFI_PARTITION:
            (first,) = struct.unpack_from("<Q", entries, at + 32)
            start = read(first * 512, _EFI_LOOK)
            found |= {name for mark, name in _EFI_PROGRAMS.items() if mark in start}
    return DiskBoot(not any(head[:_BOOT_CODE_SIZE]), found.pop() if len(found) == 1 else None)
