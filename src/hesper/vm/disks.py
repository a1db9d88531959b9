"""What a file given to `hesper vm` is: told by its first bytes, not by its name."""

from __future__ import annotations

import enum
from pathlib import Path

_ISO_OFFSET = 0x8001
_X86_KERNEL_OFFSET = 0x202
_ARM_KERNEL_OFFSET = 0x38
_HEAD = _ISO_OFFSET + 8
_GPT_OFFSET = 512
_BOOT_CODE_SIZE = 440


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
    with path.open("rb") as file:
        head = file.read(_HEAD)
    # A bootable ISO may look like a disk as well.
    if head[_ISO_OFFSET : _ISO_OFFSET + 5] == b"CD001":
        return FileKind.ISO
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return FileKind.RAW


def check_disk(path: Path) -> FileKind:
    """Tell what kind of disk `path` is.

    Raises `OSError` when it cannot be read, and `ValueError` for what is no disk.
    """
    with path.open("rb") as file:
        head = file.read(8)
    for magic, program in _COMPRESSED:
        if head.startswith(magic):
            raise ValueError(f"{path} is compressed: unpack it first ({program})")
    kind = file_kind(path)
    if kind.is_kernel:
        raise ValueError(f"{path} is a Linux kernel: say --kernel {path}")
    return kind


def wants_uefi(path: Path) -> bool:
    """Whether a raw disk can only be booted by UEFI: a GUID partition table, no boot code.

    Raises `OSError` when it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_GPT_OFFSET + 8)
    return head[_GPT_OFFSET:] == b"EFI PART" and not any(head[:_BOOT_CODE_SIZE])
