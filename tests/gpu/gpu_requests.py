"""Requests as a virtio-gpu driver makes them, as bytes; how they reach a device, others know."""

from __future__ import annotations

import struct

from hesper.gpu.wire import (
    CAPSET_VENUS,
    HEADER,
    BlobMemory,
    Command,
    HeaderFlag,
)
from hesper.portable import page_size
from hesper.protocol.virtgpu import BlobFlag

GUEST_BASE = 0x4000_0000
"""Guest address at which every guest of the tests has its memory."""
MAPPABLE = BlobFlag.USE_MAPPABLE
PAGE = page_size()
XRGB = 2

Rectangle = tuple[int, int, int, int]


def request(
    command: int,
    body: bytes = b"",
    *,
    ctx_id: int = 0,
    flags: int = 0,
    fence_id: int = 0,
    ring_idx: int = 0,
) -> bytes:
    """Return a request: header and what follows it."""
    return HEADER.pack(command, flags, fence_id, ctx_id, ring_idx) + body


def on_resource(command: int, resource: int, *, ctx_id: int = 0) -> bytes:
    """Return a request that names a resource and nothing else."""
    return request(command, struct.pack("<I4x", resource), ctx_id=ctx_id)


def memory_entries(pieces: list[tuple[int, int]]) -> bytes:
    """Return entries of guest memory: offsets and lengths."""
    return b"".join(struct.pack("<QI4x", GUEST_BASE + at, length) for at, length in pieces)


# Contexts.


def create_context(ctx_id: int, name: bytes = b"test", capset: int = CAPSET_VENUS) -> bytes:
    """`CTX_CREATE`."""
    body = struct.pack("<2I64s", len(name), capset, name)
    return request(Command.CTX_CREATE, body, ctx_id=ctx_id)


def destroy_context(ctx_id: int) -> bytes:
    """`CTX_DESTROY`."""
    return request(Command.CTX_DESTROY, ctx_id=ctx_id)


def submit(
    ctx_id: int, commands: bytes, *, fence_id: int | None = None, ring_idx: int | None = None
) -> bytes:
    """`SUBMIT_3D`; with a `fence_id` fenced, on the context's timeline `ring_idx` if that is given.

    Without one the fence is on the device's own timeline.
    """
    flags = HeaderFlag(0)
    if fence_id is not None:
        flags |= HeaderFlag.FENCE
    if ring_idx is not None:
        flags |= HeaderFlag.INFO_RING_IDX
    body = struct.pack("<I4x", len(commands)) + commands
    return request(
        Command.SUBMIT_3D,
        body,
        ctx_id=ctx_id,
        flags=flags,
        fence_id=fence_id or 0,
        ring_idx=ring_idx or 0,
    )


# Blobs.


def create_blob(
    resource: int,
    size: int = PAGE,
    *,
    ctx_id: int = 0,
    memory: int = BlobMemory.HOST3D,
    flags: int = MAPPABLE,
    blob_id: int = 0,
    pieces: list[tuple[int, int]] | None = None,
) -> bytes:
    """`RESOURCE_CREATE_BLOB`; `pieces` are offsets and lengths of guest memory."""
    pieces = pieces or []
    body = struct.pack("<4I2Q", resource, memory, flags, len(pieces), blob_id, size)
    return request(Command.RESOURCE_CREATE_BLOB, body + memory_entries(pieces), ctx_id=ctx_id)


def map_blob(resource: int, offset: int) -> bytes:
    """`RESOURCE_MAP_BLOB`."""
    return request(Command.RESOURCE_MAP_BLOB, struct.pack("<I4xQ", resource, offset))


def unmap_blob(resource: int) -> bytes:
    """`RESOURCE_UNMAP_BLOB`."""
    return on_resource(Command.RESOURCE_UNMAP_BLOB, resource)


def unref(resource: int) -> bytes:
    """`RESOURCE_UNREF`."""
    return on_resource(Command.RESOURCE_UNREF, resource)


# 2D resources and scanouts.


def create_2d(resource: int, width: int, height: int, pixel_format: int = XRGB) -> bytes:
    """`RESOURCE_CREATE_2D`."""
    body = struct.pack("<4I", resource, pixel_format, width, height)
    return request(Command.RESOURCE_CREATE_2D, body)


def attach_backing(resource: int, pieces: list[tuple[int, int]]) -> bytes:
    """`RESOURCE_ATTACH_BACKING`; `pieces` are offsets and lengths of guest memory."""
    body = struct.pack("<2I", resource, len(pieces)) + memory_entries(pieces)
    return request(Command.RESOURCE_ATTACH_BACKING, body)


def transfer(resource: int, rect: Rectangle, offset: int = 0) -> bytes:
    """`TRANSFER_TO_HOST_2D`."""
    body = struct.pack("<4IQI4x", *rect, offset, resource)
    return request(Command.TRANSFER_TO_HOST_2D, body)


def set_scanout(scanout: int, resource: int, rect: Rectangle) -> bytes:
    """`SET_SCANOUT`."""
    return request(Command.SET_SCANOUT, struct.pack("<4I2I", *rect, scanout, resource))


def set_scanout_blob(
    resource: int, rect: Rectangle, size: tuple[int, int], stride: int, *, offset: int = 0
) -> bytes:
    """`SET_SCANOUT_BLOB` of scanout 0 in XRGB."""
    body = struct.pack(
        "<4I5I4x8I", *rect, 0, resource, *size, XRGB, stride, 0, 0, 0, offset, 0, 0, 0
    )
    return request(Command.SET_SCANOUT_BLOB, body)


def flush(resource: int, rect: Rectangle) -> bytes:
    """`RESOURCE_FLUSH`."""
    return request(Command.RESOURCE_FLUSH, struct.pack("<4II4x", *rect, resource))


def update_cursor(
    scanout: int, place: tuple[int, int], resource: int, hot: tuple[int, int] = (0, 0)
) -> bytes:
    """`UPDATE_CURSOR`."""
    body = struct.pack("<I2i4x3I4x", scanout, *place, resource, *hot)
    return request(Command.UPDATE_CURSOR, body)


def move_cursor(scanout: int, place: tuple[int, int]) -> bytes:
    """`MOVE_CURSOR`."""
    body = struct.pack("<I2i4x3I4x", scanout, *place, 0, 0, 0)
    return request(Command.MOVE_CURSOR, body)
