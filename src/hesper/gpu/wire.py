"""What the bytes of virtio-gpu mean: numbers and structs, no behaviour.

Source: Virtual I/O Device (VIRTIO) Version 1.3, section 5.7 "GPU Device", and
`include/uapi/linux/virtio_gpu.h` for what is newer.  Everything is little-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Generic, NamedTuple, TypeVar

Fields = TypeVar("Fields")

DEVICE_ID = 16
CONTROL_QUEUE = 0
CURSOR_QUEUE = 1
QUEUE_COUNT = 2

MAX_SCANOUTS = 16
SHM_ID_HOST_VISIBLE = 1
"""The shared memory region that `RESOURCE_MAP_BLOB` maps into."""


class Feature(IntFlag):
    """`VIRTIO_GPU_F_*`, as a mask."""

    VIRGL = 1 << 0
    """Contexts, capsets and `SUBMIT_3D`; says nothing of what a context speaks."""
    EDID = 1 << 1
    RESOURCE_UUID = 1 << 2
    RESOURCE_BLOB = 1 << 3
    CONTEXT_INIT = 1 << 4
    BLOB_ALIGNMENT = 1 << 5


class Command(IntEnum):
    """Requests of the driver, by `type` of the control header."""

    GET_DISPLAY_INFO = 0x0100
    RESOURCE_CREATE_2D = 0x0101
    RESOURCE_UNREF = 0x0102
    SET_SCANOUT = 0x0103
    RESOURCE_FLUSH = 0x0104
    TRANSFER_TO_HOST_2D = 0x0105
    RESOURCE_ATTACH_BACKING = 0x0106
    RESOURCE_DETACH_BACKING = 0x0107
    GET_CAPSET_INFO = 0x0108
    GET_CAPSET = 0x0109
    GET_EDID = 0x010A
    RESOURCE_ASSIGN_UUID = 0x010B
    RESOURCE_CREATE_BLOB = 0x010C
    SET_SCANOUT_BLOB = 0x010D
    CTX_CREATE = 0x0200
    CTX_DESTROY = 0x0201
    CTX_ATTACH_RESOURCE = 0x0202
    CTX_DETACH_RESOURCE = 0x0203
    RESOURCE_CREATE_3D = 0x0204
    TRANSFER_TO_HOST_3D = 0x0205
    TRANSFER_FROM_HOST_3D = 0x0206
    SUBMIT_3D = 0x0207
    RESOURCE_MAP_BLOB = 0x0208
    RESOURCE_UNMAP_BLOB = 0x0209
    UPDATE_CURSOR = 0x0300
    MOVE_CURSOR = 0x0301


class Response(IntEnum):
    """Answers of the device, by `type` of the control header."""

    OK_NODATA = 0x1100
    OK_DISPLAY_INFO = 0x1101
    OK_CAPSET_INFO = 0x1102
    OK_CAPSET = 0x1103
    OK_EDID = 0x1104
    OK_RESOURCE_UUID = 0x1105
    OK_MAP_INFO = 0x1106
    ERR_UNSPEC = 0x1200
    ERR_OUT_OF_MEMORY = 0x1201
    ERR_INVALID_SCANOUT_ID = 0x1202
    ERR_INVALID_RESOURCE_ID = 0x1203
    ERR_INVALID_CONTEXT_ID = 0x1204
    ERR_INVALID_PARAMETER = 0x1205


class HeaderFlag(IntFlag):
    """Flags of the control header."""

    FENCE = 1 << 0
    INFO_RING_IDX = 1 << 1


class BlobMemory(IntEnum):
    """Where a blob's bytes are (`blob_mem`)."""

    GUEST = 1
    HOST3D = 2
    HOST3D_GUEST = 3


EVENT_DISPLAY = 1 << 0
"""Event of the config space: display info or EDID has changed."""

CONTEXT_INIT_CAPSET_ID_MASK = 0xFF
CAPSET_VENUS = 4
CAPSET_UNUSED = 30
"""A capset that nobody has; Linux shifts a 32-bit number by it, so it is none of 31 to 63."""

HEADER = Struct("<IIQIB3x")
"""type, flags, fence_id, ctx_id, ring_idx"""


class Layout(Generic[Fields]):
    """How the fields after a request's header lie."""

    def __init__(self, layout: str, fields: Callable[..., Fields]) -> None:
        """`layout`: as for `struct`.  `fields`: takes the values in order."""
        self._struct = Struct(layout)
        self._fields = fields
        self.size = self._struct.size
        """Bytes."""

    def unpack(self, body: memoryview) -> Fields:
        """Read the fields; `body` has at least `size` bytes."""
        return self._fields(*self._struct.unpack_from(body))


class NoFields(NamedTuple):
    """Nothing after the header: `GET_DISPLAY_INFO`, `CTX_DESTROY`."""


class ResourceId(NamedTuple):
    """A resource: `RESOURCE_UNREF`, `_DETACH_BACKING`, `_ASSIGN_UUID`, `_UNMAP_BLOB`, `CTX_*`."""

    resource_id: int


class ResourceCreate2d(NamedTuple):
    """`RESOURCE_CREATE_2D`."""

    resource_id: int
    format: int
    width: int
    height: int


class SetScanout(NamedTuple):
    """`SET_SCANOUT`: the rectangle is a part of the resource."""

    x: int
    y: int
    width: int
    height: int
    scanout_id: int
    resource_id: int


class ResourceFlush(NamedTuple):
    """`RESOURCE_FLUSH`."""

    x: int
    y: int
    width: int
    height: int
    resource_id: int


class TransferToHost2d(NamedTuple):
    """`TRANSFER_TO_HOST_2D`; `offset` is where the rectangle begins in the backing."""

    x: int
    y: int
    width: int
    height: int
    offset: int
    resource_id: int


class AttachBacking(NamedTuple):
    """`RESOURCE_ATTACH_BACKING`; as many memory `entries` follow."""

    resource_id: int
    entries: int


class GetCapsetInfo(NamedTuple):
    """`GET_CAPSET_INFO`."""

    capset_index: int


class GetCapset(NamedTuple):
    """`GET_CAPSET`."""

    id: int
    version: int


class GetEdid(NamedTuple):
    """`GET_EDID`."""

    scanout_id: int


class CreateBlob(NamedTuple):
    """`RESOURCE_CREATE_BLOB`; as many memory `entries` follow."""

    resource_id: int
    memory: int
    flags: int
    entries: int
    blob_id: int
    size: int


class SetScanoutBlob(NamedTuple):
    """`SET_SCANOUT_BLOB`, of whose four planes only the first is ever used."""

    x: int
    y: int
    width: int
    height: int
    scanout_id: int
    resource_id: int
    blob_width: int
    blob_height: int
    format: int
    stride: int
    offset: int


class CtxCreate(NamedTuple):
    """`CTX_CREATE`; `length` bytes of `name` count."""

    length: int
    context_init: int
    name: bytes


class Submit3d(NamedTuple):
    """`SUBMIT_3D`; `size` bytes of commands follow."""

    size: int


class MapBlob(NamedTuple):
    """`RESOURCE_MAP_BLOB`; `offset` in the host-visible region."""

    resource_id: int
    offset: int


class UpdateCursor(NamedTuple):
    """`UPDATE_CURSOR` and `MOVE_CURSOR`, which uses the first three.

    (`x`, `y`) is where the picture's top left corner is.  The specification calls both unsigned;
    Linux writes negative numbers where the picture sticks out at the left or the top.
    """

    scanout_id: int
    x: int
    y: int
    resource_id: int
    hot_x: int
    hot_y: int


NO_FIELDS = Layout("<", NoFields)
RESOURCE_ID = Layout("<I4x", ResourceId)
RESOURCE_CREATE_2D = Layout("<4I", ResourceCreate2d)
SET_SCANOUT = Layout("<4I2I", SetScanout)
RESOURCE_FLUSH = Layout("<4II4x", ResourceFlush)
TRANSFER_TO_HOST_2D = Layout("<4IQI4x", TransferToHost2d)
RESOURCE_ATTACH_BACKING = Layout("<2I", AttachBacking)
GET_CAPSET_INFO = Layout("<I4x", GetCapsetInfo)
GET_CAPSET = Layout("<2I", GetCapset)
GET_EDID = Layout("<I4x", GetEdid)
RESOURCE_CREATE_BLOB = Layout("<4I2Q", CreateBlob)
SET_SCANOUT_BLOB = Layout("<4I5I4xI12xI12x", SetScanoutBlob)
CTX_CREATE = Layout("<2I64s", CtxCreate)
SUBMIT_3D = Layout("<I4x", Submit3d)
RESOURCE_MAP_BLOB = Layout("<I4xQ", MapBlob)
UPDATE_CURSOR = Layout("<I2i4x3I4x", UpdateCursor)

MEM_ENTRY = Struct("<QI4x")
"""guest address, length"""

DISPLAY_ONE = Struct("<4I2I")
"""rectangle, enabled, flags"""

CAPSET_INFO = Struct("<3I4x")
"""capset id, newest version, size in bytes"""

EDID_SIZE = 1024
EDID = Struct(f"<I4x{EDID_SIZE}s")
"""size in bytes, the EDID"""

MAP_INFO = Struct("<I4x")
"""how the guest may cache it"""

CONFIG = Struct("<5I")
"""events_read, events_clear, num_scanouts, num_capsets, blob_alignment"""


class ControlHeader(NamedTuple):
    """The head of every request and answer."""

    type: int
    flags: int
    fence_id: int
    ctx_id: int
    ring_idx: int
