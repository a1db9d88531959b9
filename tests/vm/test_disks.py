"""What disks tell of how they are booted, raw and in qcow2."""

from __future__ import annotations

import random
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from hesper.vm import raw_disks
from hesper.vm.disks import DiskBoot, FileKind, check_disk, disk_boot
from hesper.vm.qcow2 import Qcow2

EFI_PARTITION = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
OTHER_PARTITION = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
FIRST = 128
"""First sector of the EFI partition."""


def disk(*programs: bytes, boot_code: bytes = b"", type_: uuid.UUID = EFI_PARTITION) -> bytes:
    """A disk with a GUID partition table and a partition that has `programs` in a folder."""
    data = bytearray(1 << 20)
    data[: len(boot_code)] = boot_code
    struct.pack_into("<8s64xQII", data, 512, b"EFI PART", 2, 4, 128)
    struct.pack_into("<16s16xQ", data, 2 * 512 + 128, type_.bytes_le, FIRST)
    for number, program in enumerate(programs):
        at = FIRST * 512 + (3 << 16) + 32 * number
        data[at : at + 11] = program
    return bytes(data)


def qcow2(data: bytes, *, packed: bool, bits: int = 16) -> bytes:
    """An image of `data` in which every cluster of zeros is left out."""
    size = 1 << bits
    clusters = [data[at : at + size] for at in range(0, len(data), size)]
    entries = [0] * (size // 8)
    body = b""
    begin = 3 * size
    for number, cluster in enumerate(clusters):
        if not any(cluster):
            continue
        at = begin + len(body)
        if packed:
            squeeze = zlib.compressobj(wbits=-12)
            content = squeeze.compress(cluster) + squeeze.flush()
            sectors = (at % 512 + len(content) - 1) // 512
            entries[number] = 1 << 62 | sectors << 62 - (bits - 8) | at
        else:
            content = cluster
            entries[number] = 1 << 63 | at
        body += content
    header = struct.pack(">4sIQIIQIIQ", b"QFI\xfb", 3, 0, 0, bits, len(data), 0, 1, size).ljust(
        size, b"\0"
    )
    table = struct.pack(">Q", 1 << 63 | 2 * size).ljust(size, b"\0")
    return header + table + struct.pack(f">{len(entries)}Q", *entries) + body + bytes(512)


@pytest.mark.parametrize("form", ["raw", "qcow2", "packed"])
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (disk(b"BOOTX64 EFI"), DiskBoot(True, "x86_64")),
        (disk(b"BOOTAA64EFI"), DiskBoot(True, "aarch64")),
        (disk(b"BOOTAA64EFI", boot_code=b"\xeb\x63\x90"), DiskBoot(False, "aarch64")),
        (disk(b"BOOTX64 EFI", b"BOOTAA64EFI"), DiskBoot(True, None)),
        (disk(b"BOOTAA64EFI", type_=OTHER_PARTITION), DiskBoot(True, None)),
        (disk(), DiskBoot(True, None)),
        (bytes(1 << 20), DiskBoot(False, None)),
    ],
    ids=["pc", "arm", "both-ways", "both", "elsewhere", "empty", "none"],
)
def test_what_boots_a_disk(tmp_path: Path, form: str, content: bytes, wanted: DiskBoot) -> None:
    path = tmp_path / "disk"
    kind = FileKind.RAW if form == "raw" else FileKind.QCOW2
    path.write_bytes(content if form == "raw" else qcow2(content, packed=form == "packed"))
    assert disk_boot(path, kind) == wanted


@pytest.mark.parametrize("packed", [False, True])
def test_any_part_of_an_image_is_read(tmp_path: Path, packed: bool) -> None:
    numbers = random.Random(1)
    data = b"".join(
        numbers.choice([bytes(4096), numbers.randbytes(100).ljust(4096, b"x")]) for _ in range(100)
    )
    path = tmp_path / "image"
    path.write_bytes(qcow2(data, packed=packed, bits=12))
    with path.open("rb") as file:
        image = Qcow2(file)
        for _ in range(100):
            at, length = numbers.randrange(len(data)), numbers.randrange(20000)
            assert image.read(at, length) == data[at : at + length]


def broken() -> Sequence[bytes]:
    good = qcow2(disk(b"BOOTX64 EFI"), packed=True)
    numbers = random.Random(2)
    cases = [good[:size] for size in (0, 4, 60, 80, 70000, 140000)]
    for _ in range(200):
        bad = bytearray(good)
        for _ in range(numbers.randrange(1, 20)):
            bad[numbers.randrange(len(bad))] = numbers.randrange(256)
        cases.append(bytes(bad))
    return cases


def test_broken_images_tell_nothing_and_harm_nobody(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for data in broken():
        path.write_bytes(data)
        assert disk_boot(path, FileKind.QCOW2).architecture in {None, "x86_64", "aarch64"}


def head(*, version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    """The head of a qcow2 image, as a guest can write it to its disk."""
    numbers = (version, backing, 11, 16, 1 << 30, 0, 1, 1 << 16)
    fields = struct.pack(">4sIQIIQIIQ", b"QFI\xfb", *numbers)
    extension = struct.pack(">Q", features) if version == 3 else b""
    return (fields.ljust(72, b"\0") + extension).ljust(512, b"\0") + b"/etc/shadow"


NAMES_FILES = {
    "backing": head(backing=512),
    "backing-2": head(version=2, backing=512),
    "data": head(features=1 << 2),
    "cut": head()[:40],
    "vmdk": b"KDMV".ljust(512, b"\0"),
}


@pytest.mark.parametrize("name", ["disk.img", "disk.raw", "disk"])
@pytest.mark.parametrize("content", NAMES_FILES.values(), ids=NAMES_FILES)
def test_a_guest_cannot_make_its_disk_name_files_of_the_host(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """QEMU would open them for it the next time."""
    path = tmp_path / name
    path.write_bytes(bytes(1 << 16))
    assert check_disk(path) is FileKind.RAW
    with path.open("r+b") as disk:
        disk.write(content)
        disk.truncate(len(content) if len(content) < 72 else 1 << 16)
    with pytest.raises(ValueError, match="other files of this machine"):
        check_disk(path)


@pytest.mark.parametrize(
    "name", ["disk.qcow2", "DISK.QCOW2", "disk.qcow", "disk.vmdk", "disk.vdi", "disk.vhdx"]
)
def test_a_disk_is_not_called_an_image(tmp_path: Path, name: str) -> None:
    """It would be taken for one once its guest has written the head of one."""
    path = tmp_path / name
    path.write_bytes(bytes(1 << 16))
    with pytest.raises(ValueError, match="give it another name"):
        check_disk(path)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("over.qcow2", head(backing=512), FileKind.QCOW2),
        ("cloud.img", head(), FileKind.QCOW2),
        ("old.img", head(version=2), FileKind.QCOW2),
        ("other.vmdk", NAMES_FILES["vmdk"], FileKind.VMDK),
    ],
)
def test_images_that_are_called_so_or_name_no_files_are_taken(
    tmp_path: Path, name: str, content: bytes, kind: FileKind
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert check_disk(path) is kind


CLAIMS_A_SIZE = {
    "qcow2": head(),
    "qcow2-2": head(version=2),
    "vdi": bytes(0x40) + b"\x7f\x10\xda\xbe" + bytes(400),
    "vhdx": b"vhdxfile" + bytes(504),
}


@pytest.mark.parametrize("content", CLAIMS_A_SIZE.values(), ids=CLAIMS_A_SIZE)
def test_a_guest_cannot_make_its_disk_larger(tmp_path: Path, content: bytes) -> None:
    """What has been a disk byte by byte stays one, however it begins the next time."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 16))
    assert check_disk(path) is FileKind.RAW
    raw_disks.remember(path)
    raw_disks.remember(path)
    path.write_bytes(content)
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        with pytest.raises(ValueError, match=r"was a disk byte by byte, .* of any size"):
            check_disk(name)
    other = tmp_path / "disk.raw"
    other.write_bytes(content)
    with pytest.raises(ValueError, match=r"is called \.raw, .* of any size"):
        check_disk(other)
    came_so = tmp_path / "cloud.img"
    came_so.write_bytes(content)
    assert check_disk(came_so) is not FileKind.RAW
    path.write_bytes(bytes(1 << 16))
    assert check_disk(path) is FileKind.RAW


def test_a_disk_is_used_where_nothing_can_be_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 16))
    raw_disks.remember(path)
    assert check_disk(path) is FileKind.RAW
    assert "call it .raw" in caplog.text
