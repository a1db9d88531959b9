"""The vtest wire format, protocol version 3: numbers and structs, no behaviour.

Source: vtest_protocol.h of virglrenderer and Mesa.  All fields are little-endian u32; a u64 travels
as two of them, low half first.  A message is a header and its data; only the data's length is
announced, in dwords (in bytes for `CREATE_RENDERER`).  A descriptor follows its reply on a data
byte of its own, as SCM_RIGHTS.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

DEFAULT_SOCKET = "/tmp/.virgl_test"
"""Where clients connect unless `VTEST_SOCKET_NAME` says otherwise."""

PROTOCOL_VERSION = 3
"""What we answer.  Version 4 adds DRM sync objects, which Venus does not use."""

CAPSET_VENUS = 4


class Command(IntEnum):
    """Every command of protocol versions 0 to 4; `REQUESTS` holds those a Venus client sends."""

    GET_CAPS = 1
    RESOURCE_CREATE = 2
    RESOURCE_UNREF = 3
    TRANSFER_GET = 4
    TRANSFER_PUT = 5
    SUBMIT_CMD = 6
    RESOURCE_BUSY_WAIT = 7
    CREATE_RENDERER = 8
    GET_CAPS2 = 9
    PING_PROTOCOL_VERSION = 10
    PROTOCOL_VERSION = 11
    RESOURCE_CREATE2 = 12
    TRANSFER_GET2 = 13
    TRANSFER_PUT2 = 14
    GET_PARAM = 15
    GET_CAPSET = 16
    CONTEXT_INIT = 17
    RESOURCE_CREATE_BLOB = 18
    SYNC_CREATE = 19
    SYNC_UNREF = 20
    SYNC_READ = 21
    SYNC_WRITE = 22
    SYNC_WAIT = 23
    SUBMIT_CMD2 = 24
    DRM_SYNC_CREATE = 25
    DRM_SYNC_DESTROY = 26
    DRM_SYNC_HANDLE_TO_FD = 27
    DRM_SYNC_FD_TO_HANDLE = 28
    DRM_SYNC_IMPORT_SYNC_FILE = 29
    DRM_SYNC_EXPORT_SYNC_FILE = 30
    DRM_SYNC_WAIT = 31
    DRM_SYNC_RESET = 32
    DRM_SYNC_SIGNAL = 33
    DRM_SYNC_TIMELINE_SIGNAL = 34
    DRM_SYNC_TIMELINE_WAIT = 35
    DRM_SYNC_QUERY = 36
    DRM_SYNC_TRANSFER = 37
    RESOURCE_EXPORT_FD = 38


class Phase(IntEnum):
    """How far a client has come; each command belongs to a span of phases."""

    CONNECTED = 0
    NAMED = 1
    """after CREATE_RENDERER"""
    NEGOTIATED = 2
    """after PROTOCOL_VERSION"""
    RUNNING = 3
    """after CONTEXT_INIT"""


class Request(NamedTuple):
    """What a command's message may look like."""

    unit: int
    """Bytes that one step of the header's length stands for."""
    shortest: int
    """Least length of the data in bytes."""
    longest: int
    """Greatest length of the data in bytes."""
    first: Phase
    last: Phase


MAX_NAME = 4096
"""Longest client name in bytes, its zero included."""
MAX_SUBMIT = 16 << 20
"""Longest SUBMIT_CMD2 in bytes; a client puts longer streams into shared memory."""
MAX_WAIT_SYNCS = 4096
"""Most syncs one SYNC_WAIT names."""


def _dwords(shortest: int, longest: int, first: Phase, last: Phase = Phase.RUNNING) -> Request:
    return Request(4, shortest * 4, longest * 4, first, last)


REQUESTS = {
    Command.CREATE_RENDERER: Request(1, 1, MAX_NAME, Phase.CONNECTED, Phase.CONNECTED),
    Command.PING_PROTOCOL_VERSION: _dwords(0, 0, Phase.NAMED),
    Command.RESOURCE_BUSY_WAIT: _dwords(2, 2, Phase.NAMED),
    Command.PROTOCOL_VERSION: _dwords(1, 1, Phase.NAMED, Phase.NAMED),
    Command.GET_PARAM: _dwords(1, 1, Phase.NEGOTIATED),
    Command.GET_CAPSET: _dwords(2, 2, Phase.NEGOTIATED),
    Command.CONTEXT_INIT: _dwords(1, 1, Phase.NEGOTIATED, Phase.NEGOTIATED),
    Command.RESOURCE_CREATE_BLOB: _dwords(6, 6, Phase.RUNNING),
    Command.RESOURCE_UNREF: _dwords(1, 1, Phase.RUNNING),
    Command.SYNC_CREATE: _dwords(2, 2, Phase.RUNNING),
    Command.SYNC_UNREF: _dwords(1, 1, Phase.RUNNING),
    Command.SYNC_READ: _dwords(1, 1, Phase.RUNNING),
    Command.SYNC_WRITE: _dwords(3, 3, Phase.RUNNING),
    Command.SYNC_WAIT: _dwords(2, 2 + 3 * MAX_WAIT_SYNCS, Phase.RUNNING),
    Command.SUBMIT_CMD2: _dwords(1, MAX_SUBMIT // 4, Phase.RUNNING),
}


class Param(IntEnum):
    """What GET_PARAM can ask for."""

    MAX_TIMELINE_COUNT = 1


class BlobType(IntEnum):
    """Where a blob's memory comes from."""

    GUEST = 1
    HOST3D = 2
    HOST3D_GUEST = 3


WAIT_EITHER = 1
"""Flag of a `Wait`: any of the points is enough."""
BATCH_RING_IDX = 1
"""Flag of a `Batch`: it has a timeline."""


class Header(NamedTuple):
    """What every message begins with."""

    length: int
    """Of the data, in steps of `Request.unit`."""
    command: int


class CreateBlob(NamedTuple):
    """Data of RESOURCE_CREATE_BLOB."""

    type: int
    """A `BlobType`."""
    flags: int
    size: int
    blob_id: int


class Point(NamedTuple):
    """A value of a sync; data of SYNC_WRITE too."""

    sync: int
    value: int


class Wait(NamedTuple):
    """What data of SYNC_WAIT begins with; points follow."""

    flags: int
    timeout_ms: int


class Batch(NamedTuple):
    """One of the batches that data of SUBMIT_CMD2 has behind their count.

    Offsets and sizes are in dwords from the start of the data.
    """

    flags: int
    commands: int
    command_size: int
    syncs: int
    """Where its points are."""
    sync_count: int
    ring_idx: int


LONG_BATCH = 32
"""Bytes of a batch in Mesa 26.1, which has two fields more, for DRM sync objects; see `Batch`."""


class ReplyU32(NamedTuple):
    """A header and one dword."""

    length: int
    command: int
    value: int


class ReplyU64(NamedTuple):
    """A header and two dwords."""

    length: int
    command: int
    value: int


HEADER = Struct("<II")
U32 = Struct("<I")
BUSY_WAIT = Struct("<II")
"""resource, flags"""
CAPSET = Struct("<II")
"""capset id, version"""
REPLY_U32 = Struct("<III")
REPLY_TWO_U32 = Struct("<IIII")
"""header and two dwords"""

LAYOUTS = {
    Header: HEADER,
    CreateBlob: Struct("<IIQQ"),
    Point: Struct("<IQ"),
    Wait: Struct("<II"),
    Batch: Struct("<6I"),
    ReplyU32: REPLY_U32,
    ReplyU64: Struct("<IIQ"),
}
"""How messages are packed that compiled code reads and writes."""
