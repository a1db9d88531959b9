"""Requests at random, workers that say anything at all: each is answered, and nothing stays."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable

import pytest
from gpu_requests import (
    PAGE,
    attach_backing,
    create_2d,
    create_blob,
    create_context,
    destroy_context,
    flush,
    map_blob,
    on_resource,
    set_scanout,
    set_scanout_blob,
    submit,
    transfer,
    unmap_blob,
    unref,
    update_cursor,
)
from gpu_vm import MakeVm, Vm, Worker

from hesper.gpu import context_wire as wire
from hesper.gpu.context_wire import Up
from hesper.gpu.limits import Limits
from hesper.gpu.wire import BlobMemory, Command, Response
from hesper.portable import FRAME, send_message
from open_files import assert_no_more_descriptors, count_descriptors

LIMITS = Limits(
    resources=20, picture_memory=4 << 20, pieces=600, attachments=30, waiting=1 << 20, descriptors=8
)


class Anything:
    """Draws requests, and what workers say."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one(self, *values: int) -> int:
        return self.random.choice(values)

    def resource(self) -> int:
        return self.random.randrange(8)

    def ctx_id(self) -> int:
        return self.random.randrange(4)

    def rect(self) -> tuple[int, int, int, int]:
        x, y, width, height = (self.one(0, 0, 1, 63, 64, 300, 0xFFFFFFFF) for _ in range(4))
        return x, y, width, height

    def pieces(self) -> list[tuple[int, int]]:
        count = self.one(0, 1, 2, 16, 300)
        starts = (self.random.randrange(0x200000, 0x3FF000) for _ in range(count))
        pieces = [(start, self.one(1, 16, PAGE)) for start in starts]
        return [*pieces, (0x100000, self.one(PAGE, 1 << 20, 1 << 30))]

    def request(self) -> bytes:
        resource, ctx_id, rect = self.resource(), self.ctx_id(), self.rect()
        size = self.one(1, PAGE, 64 * 256, 1 << 20)
        fence = self.random.choice((None, None, 5))
        ring = self.random.choice((None, 0, 1, 64)) if fence else None
        flags = self.one(0, 1, 8)
        host, guest, both = BlobMemory.HOST3D, BlobMemory.GUEST, BlobMemory.HOST3D_GUEST
        edge = self.one(0, 1, 64, 300, 1000, 20_000)
        make: list[Callable[[], bytes]] = [
            lambda: create_context(ctx_id, capset=self.one(0, 4, 4, 4)),
            lambda: destroy_context(ctx_id),
            lambda: submit(ctx_id, bytes(self.one(0, 8, 5000)), fence_id=fence, ring_idx=ring),
            lambda: create_2d(resource, edge, edge),
            lambda: attach_backing(resource, self.pieces()),
            lambda: transfer(resource, rect, self.one(0, 4, PAGE, 1 << 40)),
            lambda: set_scanout(self.one(0, 1, 7), resource, rect),
            lambda: set_scanout_blob(resource, rect, (64, 64), self.one(0, 256, 300)),
            lambda: flush(resource, rect),
            lambda: update_cursor(0, (3, 4), resource),
            lambda: create_blob(resource, size, ctx_id=ctx_id, memory=host),
            lambda: create_blob(resource, size, ctx_id=ctx_id, memory=host, flags=flags),
            lambda: create_blob(resource, size, memory=guest, flags=0, pieces=self.pieces()),
            lambda: create_blob(resource, size, ctx_id=ctx_id, memory=both, pieces=self.pieces()),
            lambda: map_blob(resource, self.one(0, PAGE, 1 << 20, 1)),
            lambda: unmap_blob(resource),
            lambda: unref(resource),
            lambda: on_resource(Command.RESOURCE_DETACH_BACKING, resource),
            lambda: on_resource(Command.CTX_ATTACH_RESOURCE, resource, ctx_id=ctx_id),
            lambda: on_resource(Command.CTX_DETACH_RESOURCE, resource, ctx_id=ctx_id),
        ]
        return self.random.choice(make)()

    def descriptor(self, size: int) -> int:
        """Return something that a worker may hand over as a blob's memory."""
        kind = self.random.randrange(8)
        if kind == 0:
            ours, theirs = os.pipe()
            os.close(theirs)
            return ours
        if kind == 1:
            return os.open("/dev/null", os.O_RDWR)
        fd = os.memfd_create("any", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if kind > 2 else 0))
        os.ftruncate(fd, max(size - self.one(0, 0, 0, 0, PAGE), 0))
        return fd

    def nonsense(self) -> bytes:
        kind = self.one(0, 1, 2, 3, 4, 5, 1 << 31)
        body = self.random.randbytes(self.one(0, 4, 8, 12, 24))
        length = self.random.choice((4 + len(body), 4 + len(body), 0, 3, 5000))
        return FRAME.pack(length, self.one(0, 0, 0, 1, 2)) + wire.KIND.pack(kind) + body

    def take_over(self, worker: Worker) -> None:
        """Make a worker hand over anything for its blobs."""

        def create(serial: int, _resource_id: int, _flags: int, _blob_id: int, size: int) -> None:
            response = self.random.choice((0x1100, 0x1100, 0x1100, 0x1201, 0x1101, 7))
            body = wire.KIND.pack(Up.BLOB) + wire.BLOB.pack(serial, response, self.one(1, 1, 1, 9))
            if self.random.random() < 0.1:
                send_message(worker.socket, body)
                return
            fd = self.descriptor(min(size, 1 << 20))
            try:
                send_message(worker.socket, body, [fd])
            finally:
                os.close(fd)

        worker.__dict__["_create_blob"] = create


def let_go(vm: Vm, anything: Anything, seen: set[Worker]) -> None:
    """Let workers retire fences, and sometimes say what makes no sense."""
    for worker in tuple(vm.workers):
        if worker not in seen:
            seen.add(worker)
            anything.take_over(worker)
        for fence in tuple(worker.fences):
            worker.fences.remove(fence)
            try:
                worker.say(Up.RETIRED, wire.RETIRED.pack(fence[1]))
                if anything.random.random() < 0.05:
                    worker.socket.sendall(anything.nonsense())
            except OSError:
                continue  # it has been ended


@pytest.mark.parametrize("seed", range(4))
def test_anything_is_answered(make_vm: MakeVm, seed: int) -> None:
    vm = make_vm(limits=LIMITS)
    before = count_descriptors()
    anything = Anything(seed)
    seen: set[Worker] = set()
    for number in range(400):
        vm.guest.heap = 0x20000
        posted, answer = vm.guest.post(anything.request(), queue=number % 2)
        while (done := vm.guest.take(number % 2, timeout=0.01)) is None:
            let_go(vm, anything, seen)
        assert done[0] == posted
        assert 0x1100 <= vm.guest.read_answer(answer, done[1]).type < 0x1300
        if anything.random.random() < 0.01:
            vm.guest.restart()
    vm.guest.restart()
    vm.settle()
    for worker in vm.workers:
        assert worker.ended.wait(30)
        worker.socket.close()
    assert_no_more_descriptors(before)
    for resource in itertools.count(1):
        vm.guest.heap = 0x20000
        if vm.guest.send(create_2d(resource, 8, 8)).type != Response.OK_NODATA:
            break
    assert resource == LIMITS.resources + 1
