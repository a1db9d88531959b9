"""UEFI's console on Hesper's screen: a variable in the guest's flash that names it.

EDK2, the firmware of QEMU's machines, has a driver for virtio-gpu, and starts it for what is on the
PCI bus as a display.  QEMU's device for vhost-user is there as something else, and cannot be told
otherwise; but firmware starts, too, whatever `ConOut`, its list of consoles, names.

Sources: UEFI 2.10, sections 3.3 (`ConOut`) and 10.3 (device paths); EDK2's `VariableFormat.h`
(the store; `AUTHENTICATED_VARIABLE_HEADER`), `VirtioGpuDxe` (the path of its screens) and
`PlatformBootManagerLib` (the list is added to, not replaced).
"""

from __future__ import annotations

import mmap
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hesper.log import get_logger
from hesper.vm.machine import SLOT

VOLUME = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
"""`EFI_SYSTEM_NV_DATA_FV_GUID`."""
STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
"""`gEfiAuthenticatedVariableGuid`."""
GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
"""`gEfiGlobalVariableGuid`."""
VOLUME_GUID_AT, VOLUME_LENGTH_AT = 16, 48
_STORE_HEADER = struct.Struct("<16sIBB6x")
"""GUID, bytes of the store, format, state."""
FORMATTED, HEALTHY = 0x5A, 0xFE
_HEADER = struct.Struct("<HBxI8x16x4xII16s")
"""Mark, state, attributes; bytes of the name and of the data, the name's owner."""
MARK = 0x55AA
ADDED = 0x3F
IN_TRANSITION = 0x3E
DELETED = 0xFD
"""Bits that are left of a state: flash is written by clearing them."""
ERASED = b"\xff"
KEPT = 7
"""Not volatile, and there at boot time and at run time."""
ALIGNMENT = 4
NAME = "ConOut"

_ACPI, _HARDWARE = 2, 1
_END, _NEXT = b"\x7f\xff\x04\0", b"\x7f\x01\x04\0"
"""Of all paths, and of one of several."""
PCI_ROOT = 0x0A0341D0
"""`PNP0A03` as a number."""
VGA_SCREEN = 0x80010100
"""`ACPI_DISPLAY_ADR` of a first screen."""

_log = get_logger(__name__)


def _node(kind: int, subtype: int, data: bytes) -> bytes:
    return struct.pack("<BBH", kind, subtype, 4 + len(data)) + data


def _pci(device: int) -> bytes:
    return _node(_HARDWARE, 1, bytes([0, device]))


SCREEN = (
    _node(_ACPI, 1, struct.pack("<II", PCI_ROOT, 0))
    + _pci(SLOT)
    + _pci(0)
    + _node(_ACPI, 3, struct.pack("<I", VGA_SCREEN))
)
"""Device path of the first screen of Hesper's device, without its end."""


class _Variable(NamedTuple):
    at: int
    """Of its header, in bytes from the file's beginning."""
    state: int
    owner: bytes
    name: str
    data: bytes


def name_screen(path: Path) -> None:
    """Have the firmware whose variables are in the file `path` show its console on our screen.

    What is no store of EDK2's is left as it is: its console is then the serial port alone.  Raises
    `OSError`.
    """
    is_named = False
    if path.stat().st_size:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as flash:
            is_named = _name_screen(flash)
    if not is_named:
        _log.warning(
            "firmware and boot loader are not seen",
            reason="the firmware's variables are no store that is known, or it is full",
            remedy="if they are new, start again; or look at the serial port (--serial stdio)",
            path=str(path),
        )


def _name_screen(flash: mmap.mmap) -> bool:
    """Whether the screen is named now."""
    bounds = _store(flash)
    if bounds is None:
        return False
    end = bounds[0]
    old: list[_Variable] = []
    for variable, after in _variables(flash, *bounds):
        end = after
        is_there = variable.state in {ADDED, ADDED & IN_TRANSITION}
        if is_there and (variable.name, variable.owner) == (NAME, GLOBAL.bytes_le):
            old.append(variable)
    consoles = _paths(old[-1].data) if old else []
    if SCREEN in consoles:
        return True
    data = _NEXT.join([SCREEN, *consoles]) + _END
    name = NAME.encode("utf-16-le") + b"\0\0"
    header = _HEADER.pack(MARK, ADDED, KEPT, len(name), len(data), GLOBAL.bytes_le)
    whole = header + name + data
    # Where something else follows, or there is no room, only the firmware knows what to do.
    if flash[end : bounds[1]][: len(whole)] != ERASED * len(whole):
        return False
    flash[end : end + len(whole)] = whole
    for variable in old:
        flash[variable.at + 2] = variable.state & DELETED
    return True


def _paths(data: bytes) -> list[bytes]:
    """Device paths, without their ends, of a list of them; those before what is none."""
    paths: list[bytes] = []
    start = at = 0
    while at + 4 <= len(data):
        kind, _, length = struct.unpack_from("<BBH", data, at)
        if length < 4:
            break
        if kind == _END[0]:
            paths.append(data[start:at])
            start = at + length
        at += length
    return paths


def _store(flash: mmap.mmap) -> tuple[int, int] | None:
    """Where the variables begin and end; None where there are none."""
    if flash[VOLUME_GUID_AT : VOLUME_GUID_AT + 16] != VOLUME.bytes_le:
        return None
    (start,) = struct.unpack_from("<H", flash, VOLUME_LENGTH_AT)
    if start + _STORE_HEADER.size > len(flash):
        return None
    guid, size, form, state = _STORE_HEADER.unpack_from(flash, start)
    if (guid, form, state) != (STORE.bytes_le, FORMATTED, HEALTHY) or start + size > len(flash):
        return None
    return start + _STORE_HEADER.size, start + size


def _variables(flash: mmap.mmap, at: int, end: int) -> Iterator[tuple[_Variable, int]]:
    """Yield the variables, and where the next would begin."""
    while at + _HEADER.size <= end:
        mark, state, _, name_size, size, owner = _HEADER.unpack_from(flash, at)
        if mark != MARK:
            return
        first = at + _HEADER.size
        after = first + name_size + size
        if after > end:
            return
        name = flash[first : first + name_size].decode("utf-16-le", "replace").rstrip("\0")
        yield _Variable(at, state, owner, name, flash[first + name_size : after]), _aligned(after)
        at = _aligned(after)


def _aligned(number: int) -> int:
    return -(-number // ALIGNMENT) * ALIGNMENT
