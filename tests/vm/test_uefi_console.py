"""The variable by which UEFI firmware finds the GPU's screen."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hesper.vm.uefi_console import GLOBAL, SCREEN, STORE, VOLUME, name_screen

SIZE = 0x4000
"""Of a store."""
BEGIN = 72
"""Of a store in its volume."""
OTHER = b"\x01\x03\x05\0x"
"""A device path of one node."""
END, NEXT = b"\x7f\xff\x04\0", b"\x7f\x01\x04\0"
ADDED, DELETED = 0x3F, 0x3D
HALF = struct.pack("<HBBI", 0x55AA, ADDED, 0, 7) + bytes(28) + struct.pack("<II", 9, 1 << 30)
"""The beginning of a variable that would be longer than the store."""


def variable(name: str, data: bytes, state: int = ADDED, owner: bytes = GLOBAL.bytes_le) -> bytes:
    """One, as EDK2 writes it."""
    text = name.encode("utf-16-le") + b"\0\0"
    head = struct.pack("<HBBI", 0x55AA, state, 0, 7) + bytes(28)
    whole = head + struct.pack("<II", len(text), len(data)) + owner + text + data
    return whole + b"\xff" * (-len(whole) % 4)


def store(*variables: bytes, size: int = SIZE) -> bytes:
    """A flash chip with a store of `size` bytes."""
    volume = bytes(16) + VOLUME.bytes_le + bytes(16) + struct.pack("<H", BEGIN)
    head = STORE.bytes_le + struct.pack("<IBB6x", size, 0x5A, 0xFE)
    return (
        volume.ljust(BEGIN, b"\0")
        + (head + b"".join(variables)).ljust(size, b"\xff")
        + b"\xff" * 0x1000
    )


def named(tmp_path: Path, flash: bytes) -> bytes:
    """What becomes of it."""
    path = tmp_path / "flash"
    path.write_bytes(flash)
    name_screen(path)
    return path.read_bytes()


def consoles(*paths: bytes) -> bytes:
    """A list of device paths."""
    return NEXT.join(paths) + END


def test_an_empty_store_gets_the_screen(tmp_path: Path) -> None:
    assert named(tmp_path, store()) == store(variable("ConOut", consoles(SCREEN)))


def test_the_path_is_the_one_that_firmware_has() -> None:
    """As EDK2 itself has written it down: PciRoot(0)/Pci(10,0)/Pci(0,0)/AcpiAdr(80010100)."""
    assert SCREEN.hex() == (
        "02010c00d041030a00000000010106000010010106000000"  # root, port, device
        "0203080000010180"  # screen
    )


def test_other_consoles_stay(tmp_path: Path) -> None:
    """The variable is written anew: flash is not written over."""
    others = [variable("Lang", b"eng"), variable("ConOut", b"?", owner=bytes(16))]
    before = store(*others, variable("ConOut", consoles(OTHER, OTHER + OTHER)))
    after = store(
        *others,
        variable("ConOut", consoles(OTHER, OTHER + OTHER), DELETED),
        variable("ConOut", consoles(SCREEN, OTHER, OTHER + OTHER)),
    )
    assert named(tmp_path, before) == after
    assert named(tmp_path, after) == after, "once is enough"


def test_deleted_variables_do_not_count(tmp_path: Path) -> None:
    old = variable("ConOut", consoles(SCREEN), 0x3C)
    assert named(tmp_path, store(old)) == store(old, variable("ConOut", consoles(SCREEN)))


@pytest.mark.parametrize(
    "flash",
    [
        b"",
        bytes(SIZE),
        store()[:100],
        store().replace(STORE.bytes_le, bytes(16)),
        store(variable("Lang", bytes(900)), size=1024),
        store()[:BEGIN] + STORE.bytes_le + struct.pack("<IBB", 1 << 30, 0x5A, 0xFE) + bytes(99),
        store(HALF),
    ],
    ids=[
        "nothing",
        "zeros",
        "short",
        "another kind",
        "full",
        "a size that is not there",
        "half of one",
    ],
)
def test_what_cannot_take_it_is_left_alone(
    tmp_path: Path, flash: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert named(tmp_path, flash) == flash
    assert "no store that is known" in caplog.text


def test_a_broken_list_of_consoles_is_begun_anew(tmp_path: Path) -> None:
    broken = b"\x01\x03\x01\0"
    after = named(tmp_path, store(variable("ConOut", broken)))
    assert variable("ConOut", consoles(SCREEN)) in after
