"""Requests as a driver makes them, for the tests."""

from __future__ import annotations

import gc
import os
import struct
import time

from device import Vm, Worker
from frontend import GUEST_BASE, PATIENCE, Answer, Frontend

from hesper.gpu.wire import (
    CAPSET_VENUS,
    HEADER,
    BlobFlag,
    BlobMemory,
    Command,
    HeaderFlag,
)
from hesper.portable import page_size

MAPPABLE = BlobFlag.USE_MAPPABLE
PAGE = page_size()


def descriptors() -> int:
    """How many descriptors this process has open, those of earlier tests' rubbish left out."""
    gc.collect()
    return len(os.listdir("/dev/fd"))


def assert_no_more_descriptors(before: int) -> None:
    """Wait until no more are open than before: what the device's threads close, they close soon."""
    deadline = time.monotonic() + PATIENCE
    while (now := descriptors()) > before:
        assert time.monotonic() < deadline, f"{now} descriptors are open, {before} were"
        time.sleep(0.01)


def create_context(
    vm: Vm, ctx_id: int, name: bytes = b"test", capset: int = CAPSET_VENUS
) -> Answer:
    """`CTX_CREATE`."""
    body = struct.pack("<2I64s", len(name), capset, name)
    return vm.frontend.command(Command.CTX_CREATE, body, ctx_id=ctx_id)


def open_context(vm: Vm, ctx_id: int) -> Worker:
    """Make a context and return its worker."""
    before = len(vm.workers)
    assert create_context(vm, ctx_id).type == 0x1100
    return vm.worker(before)


def destroy_context(vm: Vm, ctx_id: int) -> Answer:
    """`CTX_DESTROY`."""
    return vm.frontend.command(Command.CTX_DESTROY, ctx_id=ctx_id)


def submit_request(
    ctx_id: int, commands: bytes, *, flags: int = 0, fence_id: int = 0, ring_idx: int = 0
) -> bytes:
    """Return a `SUBMIT_3D`."""
    header = HEADER.pack(Command.SUBMIT_3D, flags, fence_id, ctx_id, ring_idx)
    return header + struct.pack("<I4x", len(commands)) + commands


def post_submit(
    vm: Vm, ctx_id: int, commands: bytes, *, fence_id: int, ring_idx: int | None
) -> tuple[int, int]:
    """Make a fenced `SUBMIT_3D` available and do not wait for it."""
    flags = HeaderFlag.FENCE | (HeaderFlag.INFO_RING_IDX if ring_idx is not None else 0)
    return vm.frontend.post(
        submit_request(ctx_id, commands, flags=flags, fence_id=fence_id, ring_idx=ring_idx or 0)
    )


def blob_request(
    resource: int,
    size: int,
    *,
    ctx_id: int = 0,
    memory: int = BlobMemory.HOST3D,
    flags: int = MAPPABLE,
    blob_id: int = 0,
    pieces: list[tuple[int, int]] | None = None,
) -> bytes:
    """Return a `RESOURCE_CREATE_BLOB`; `pieces` are offsets and lengths of guest memory."""
    pieces = pieces or []
    body = struct.pack("<4I2Q", resource, memory, flags, len(pieces), blob_id, size)
    for offset, length in pieces:
        body += struct.pack("<QI4x", GUEST_BASE + offset, length)
    return HEADER.pack(Command.RESOURCE_CREATE_BLOB, 0, 0, ctx_id, 0) + body


def send(frontend: Frontend, request: bytes) -> Answer:
    """Send a whole request and wait for its answer."""
    return frontend.wait(*frontend.post(request))


def create_blob(vm: Vm, resource: int, size: int = PAGE, **options: object) -> Answer:
    """`RESOURCE_CREATE_BLOB`."""
    return send(vm.frontend, blob_request(resource, size, **options))  # type: ignore[arg-type]


def map_request(resource: int, offset: int) -> bytes:
    """Return a `RESOURCE_MAP_BLOB`."""
    return HEADER.pack(Command.RESOURCE_MAP_BLOB, 0, 0, 0, 0) + struct.pack(
        "<I4xQ", resource, offset
    )


def on_resource(vm: Vm, command: int, resource: int, ctx_id: int = 0) -> Answer:
    """Send a command that names a resource and nothing else."""
    return vm.frontend.command(command, struct.pack("<I4x", resource), ctx_id=ctx_id)
