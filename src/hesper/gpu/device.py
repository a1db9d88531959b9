"""The virtio-gpu device: takes requests from its queues, has them done, answers.

Source: VIRTIO 1.3, section 5.7 "GPU Device".
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hesper.gpu import wire
from hesper.gpu.agreement import FEATURES, Agreement
from hesper.gpu.blobs import Blobs
from hesper.gpu.contexts import Connect, Contexts
from hesper.gpu.descriptors import Descriptors
from hesper.gpu.guest_pages import GuestPages
from hesper.gpu.limits import Limits
from hesper.gpu.long_work import LongWork
from hesper.gpu.ordering import Ordering
from hesper.gpu.pictures import Pictures
from hesper.gpu.request import (
    NOTHING,
    OK,
    Answer,
    GpuError,
    Key,
    Outcome,
    Pending,
    Request,
    context_key,
    resource_key,
    scanout_key,
)
from hesper.gpu.resources import ResourceTable
from hesper.gpu.scanouts import Scanouts
from hesper.gpu.survey import Survey
from hesper.gpu.transport import NoTransport, Transport
from hesper.gpu.wire import Command, Feature, Response
from hesper.log import get_logger
from hesper.portable import page_size

if TYPE_CHECKING:
    from hesper.display.scanout import Display
    from hesper.event_loop import EventLoop
    from hesper.gpu.long_work import Work
    from hesper.gpu.resources import Resource
    from hesper.gpu.transport import QueueElement

_log = get_logger(__name__)

CPU_TIMELINE = 0
"""Of a context: what it has run, whether or not its queues have done it."""


@dataclass(frozen=True, slots=True)
class _Operation:
    """How a command is read, ordered and done."""

    layout: wire.Layout[Any]
    run: Callable[..., Answer | Pending | None]
    keys: Callable[[Request, Any], tuple[Key, ...]]


class GpuDevice:
    """One virtio-gpu device, whatever transport its guest is reached by (see `transport`).

    For the loop's thread, but for `post_display_event` and `survey.figures`.  A request is read,
    waits until what it touches is free, is done, perhaps waits for its fence, and is answered.
    """

    def __init__(
        self,
        display: Display,
        loop: EventLoop,
        *,
        connect: Connect,
        capset: bytes,
        window: int,
        limits: Limits | None = None,
        blob_alignment: bool = True,
    ) -> None:
        """`connect`: gives a socket to a fresh worker.  `window`: bytes of host-visible region.

        blob_alignment: whether guests are told how large the host's pages are.
        """
        withheld = 0 if blob_alignment else Feature.BLOB_ALIGNMENT
        self.features = int(FEATURES & ~withheld)
        """What it offers of `wire.Feature`."""
        limits = limits or Limits()
        self.window = window
        self.display = display
        """What the guest shows."""
        self._loop = loop
        self._transport: Transport = NoTransport()
        self._agreement = Agreement()
        self._events = 0
        self._most_waiting = limits.waiting
        self._waiting = 0
        """Bytes of requests that are not done."""
        self._unanswered: collections.Counter[int] = collections.Counter()
        """Requests by context; 0: of none."""
        self._resources = ResourceTable(
            count_limit=limits.resources,
            memory_limit=limits.picture_memory,
            pieces_limit=limits.pieces,
        )
        self._pages = GuestPages(lambda: self._transport)
        self._work = LongWork(loop)
        self._cleaning = LongWork(loop)
        """What is left of drivers that have gone."""
        self._scanouts = Scanouts(self._resources, display, lambda: self._transport)
        self._contexts = Contexts(
            self._resources,
            loop,
            self._work,
            connect=connect,
            capset=capset,
            limit=limits.contexts,
            attachments=limits.attachments,
            pages=self._pages,
        )
        self.survey = Survey(self._contexts, loop)
        """What contexts do."""
        self._pictures = Pictures(self._resources, self._work, self._pages)
        self._blobs = Blobs(
            self._resources,
            self._contexts,
            self._work,
            loop,
            awaited=self._awaited,
            descriptors=Descriptors(limits.descriptors),
            pages=self._pages,
            window=window,
        )
        self._ordering = Ordering(self._start, self._loop.call)
        self._operations = self._make_operations()

    def _make_operations(self) -> dict[int, _Operation]:
        pictures, scanouts = self._pictures, self._scanouts
        contexts, blobs = self._contexts, self._blobs
        op = _Operation
        return {
            Command.GET_DISPLAY_INFO: op(wire.NO_FIELDS, scanouts.display_info, _nothing),
            Command.GET_EDID: op(wire.GET_EDID, scanouts.edid, _nothing),
            Command.RESOURCE_CREATE_2D: op(wire.RESOURCE_CREATE_2D, pictures.create, _resource),
            Command.RESOURCE_UNREF: op(wire.RESOURCE_ID, self._unref, _resource),
            Command.RESOURCE_ATTACH_BACKING: op(
                wire.RESOURCE_ATTACH_BACKING, pictures.attach_backing, _resource
            ),
            Command.RESOURCE_DETACH_BACKING: op(
                wire.RESOURCE_ID, pictures.detach_backing, _resource
            ),
            Command.TRANSFER_TO_HOST_2D: op(wire.TRANSFER_TO_HOST_2D, pictures.transfer, _resource),
            Command.SET_SCANOUT: op(wire.SET_SCANOUT, scanouts.set_scanout, _scanout),
            Command.SET_SCANOUT_BLOB: op(
                wire.SET_SCANOUT_BLOB, scanouts.set_scanout_blob, _scanout
            ),
            Command.RESOURCE_FLUSH: op(wire.RESOURCE_FLUSH, scanouts.flush, _resource),
            Command.UPDATE_CURSOR: op(wire.UPDATE_CURSOR, scanouts.update_cursor, _resource),
            Command.MOVE_CURSOR: op(wire.UPDATE_CURSOR, scanouts.move_cursor, _nothing),
            Command.GET_CAPSET_INFO: op(wire.GET_CAPSET_INFO, contexts.capset_info, _nothing),
            Command.GET_CAPSET: op(wire.GET_CAPSET, contexts.capset, _nothing),
            Command.CTX_CREATE: op(wire.CTX_CREATE, contexts.create, _context),
            Command.CTX_DESTROY: op(wire.NO_FIELDS, contexts.destroy, _context),
            Command.CTX_ATTACH_RESOURCE: op(wire.RESOURCE_ID, contexts.attach, _both),
            Command.CTX_DETACH_RESOURCE: op(wire.RESOURCE_ID, contexts.detach, _both),
            Command.SUBMIT_3D: op(wire.SUBMIT_3D, contexts.submit, _context),
            Command.RESOURCE_CREATE_BLOB: op(wire.RESOURCE_CREATE_BLOB, blobs.create, _both),
            Command.RESOURCE_MAP_BLOB: op(wire.RESOURCE_MAP_BLOB, blobs.map, _resource),
            Command.RESOURCE_UNMAP_BLOB: op(wire.RESOURCE_ID, blobs.unmap, _resource),
            Command.RESOURCE_ASSIGN_UUID: op(wire.RESOURCE_ID, blobs.assign_uuid, _resource),
        }

    # Life of a VM and its driver.

    def attach(self, transport: Transport) -> None:
        """Serve the VM behind `transport`, until `detach`."""
        self._transport = transport

    def detach(self) -> None:
        """Forget the VM, which is gone, and its memory with it."""
        self.reset()
        self._transport = NoTransport()

    def close(self) -> None:
        """Leave nothing behind: the loop has ended, and no VM is attached."""
        self._cleaning.finish()

    def negotiated(self, features: int) -> None:
        """Learn which of `features` the driver has chosen; other bits are of no interest."""
        self._agreement.choose(features)
        self._pages.aligned = bool(features & Feature.BLOB_ALIGNMENT)

    def reset(self) -> None:
        """Forget everything that the driver has set up; what was mapped is gone already."""
        self._pages.reset()
        self._scanouts.reset()
        self._blobs.reset()
        # Contexts first: their outcomes that are still to come find nothing left to do.
        self._ordering = Ordering(self._start, self._loop.call)
        self._work.clear()
        self._waiting = 0
        self._unanswered.clear()
        self._contexts.reset()
        self._cleaning.run(_close(self._resources.clear()))
        self._events = 0

    # Config space and events.

    def read_config(self) -> bytes:
        """Return the configuration space (`wire.CONFIG`)."""
        return wire.CONFIG.pack(self._events, 0, len(self.display), 1, page_size())

    def write_config(self, offset: int, data: bytes) -> None:
        """Clear the events that the driver has seen; nothing else can be written."""
        config = bytearray(wire.CONFIG.size)
        config[offset : offset + len(data)] = data
        if len(config) == wire.CONFIG.size:
            cleared = wire.CONFIG.unpack(config)[1]
            self._events &= ~cleared
            # The driver may have looked before the last change and clears the event after it.
            if cleared & wire.EVENT_DISPLAY and self._scanouts.take_news():
                self._display_event()

    def post_display_event(self, _scanout: object = None) -> None:
        """Make the guest look at display info and EDID again.  From any thread."""
        self._loop.call(self._display_event)

    def _display_event(self) -> None:
        self._events |= wire.EVENT_DISPLAY
        self._transport.config_changed()

    # Requests.

    def request(self, element: QueueElement) -> None:
        """Take a request of either queue: read its fields, and have it done when its turn comes."""
        request = Request(element)
        self._unanswered[request.header.ctx_id] += 1
        operation = self._operations.get(request.header.type)
        size = len(request.body)
        if operation is None:
            self._finish(request, GpuError(Response.ERR_UNSPEC, "no such command"))
        elif not self._agreement.allows(request.header.type):
            self._finish(request, GpuError(Response.ERR_UNSPEC, "the driver has not chosen it"))
        elif size < operation.layout.size:
            reason = f"{size} bytes after the header, {operation.layout.size} are needed"
            self._finish(request, GpuError(Response.ERR_INVALID_PARAMETER, reason))
        elif self._waiting + size > self._most_waiting:
            reason = f"requests of {self._waiting} bytes wait for their turn"
            self._finish(request, GpuError(Response.ERR_OUT_OF_MEMORY, reason))
        else:
            self._waiting += size
            request.keys = operation.keys(request, operation.layout.unpack(request.body))
            self._ordering.submit(request)

    def refuse_long(self, element: QueueElement) -> None:
        """Refuse a request that is longer than any has to be; `element` has its beginning."""
        request = Request(element)
        self._unanswered[request.header.ctx_id] += 1
        reason = "longer than any request has to be"
        self._finish(request, GpuError(Response.ERR_OUT_OF_MEMORY, reason))

    def _start(self, request: Request) -> None:
        """Do a request whose turn has come."""
        operation = self._operations[request.header.type]
        outcome: Answer | Pending | GpuError | None
        try:
            outcome = operation.run(request, operation.layout.unpack(request.body))
        except GpuError as error:
            outcome = error
        except (OSError, MemoryError) as error:
            outcome = GpuError(Response.ERR_OUT_OF_MEMORY, str(error))
        ordering = self._ordering
        if isinstance(outcome, Pending):
            if outcome.in_order:
                self._read(request)
                ordering.let_pass(request, context_key(request.header.ctx_id))
            outcome.then(lambda result: self._done(ordering, request, result))
        else:
            self._done(ordering, request, outcome or OK)

    def _done(self, ordering: Ordering, request: Request, outcome: Outcome) -> None:
        if ordering is not self._ordering:
            return
        self._read(request)
        self._finish(request, outcome)
        ordering.done(request)

    def _awaited(self, resource_id: int, ctx_id: int) -> bool:
        """Whether anybody but a context waits for a resource that the context is making.

        Its program has the blob mapped, without a context's id.  That the context is to go waits
        behind what the program has asked for itself.
        """
        return any(
            request.header.ctx_id != ctx_id and request.header.type != Command.RESOURCE_MAP_BLOB
            for request in self._ordering.behind(resource_key(resource_id))
        ) or any(
            request.header.type == Command.CTX_DESTROY
            for request in self._ordering.behind(context_key(ctx_id))
        )

    def _read(self, request: Request) -> None:
        """Let go of what came with a request: it is done, or somebody else has it."""
        self._waiting -= len(request.body)
        request.body = NOTHING

    def _finish(self, request: Request, outcome: Outcome) -> None:
        """Answer a request that is done; its fence may do so later.

        A fence on a timeline of a context, which `SUBMIT_3D` has in any case, is that context's
        matter.  Everything else is answered now: whoever waits for a screen waits for no context
        (docs/decisions/23-display-fences.md).
        """
        if isinstance(outcome, GpuError):
            self._complain(request, outcome)
            answer = Answer(outcome.response)
        else:
            answer = outcome
        header = request.header
        submitted = header.type == Command.SUBMIT_3D and answer is OK
        if not request.fenced or not (request.on_context_timeline or submitted):
            self._respond(request, answer)
            return
        ring_idx = header.ring_idx if request.on_context_timeline else CPU_TIMELINE
        try:
            self._contexts.fence(header.ctx_id, ring_idx, self._response(request, answer))
        except GpuError as error:
            self._complain(request, error)
            self._respond(request, Answer(error.response))

    def _response(self, request: Request, answer: Answer) -> Callable[[], None]:
        """Return what answers a request, unless its driver has started over by then."""
        ordering = self._ordering

        def respond() -> None:
            if ordering is self._ordering:
                self._respond(request, answer)

        return respond

    def _respond(self, request: Request, answer: Answer) -> None:
        ctx_id = request.header.ctx_id
        self._unanswered[ctx_id] -= 1
        if not self._unanswered[ctx_id]:
            del self._unanswered[ctx_id]
        request.respond(answer)

    def starved(self) -> None:
        """End the context that most requests wait for: they leave no place for others."""
        by_context = [(count, ctx_id) for ctx_id, count in self._unanswered.items() if ctx_id]
        if by_context:
            count, ctx_id = max(by_context)
            self._contexts.end(ctx_id, f"{count} requests for it have no answer, others no place")

    def _unref(self, _request: Request, asked: wire.ResourceId) -> Pending | None:
        """`RESOURCE_UNREF`."""
        resource = self._resources.find(asked.resource_id)
        self._scanouts.forget(resource)
        self._contexts.forget(resource)
        pending = self._blobs.release(resource)
        self._resources.remove(resource)
        return pending

    def _complain(self, request: Request, error: GpuError) -> None:
        """Log a refusal; each kind has an allowance of its own: a guest can send millions."""
        self._contexts.note_refusal(request.header.ctx_id, str(error))
        kind = request.header.type
        is_known = kind in self._operations
        allowance = f"{kind if is_known else 0:#x} {error.response.name}"
        _log.of(allowance).warning(
            "request refused",
            command=Command(kind).name if is_known else f"command {kind:#x}",
            answer=error.response.name,
            reason=str(error),
        )


def _close(resources: list[Resource]) -> Work:
    """Release what resources hold, of which there may be many, and gigabytes."""
    while resources:
        resources.pop().close()
        yield
    return None


def _nothing(_request: Request, _asked: Any) -> tuple[Key, ...]:
    return ()


def _resource(_request: Request, asked: Any) -> tuple[Key, ...]:
    return (resource_key(asked.resource_id),)


def _context(request: Request, _asked: Any) -> tuple[Key, ...]:
    return (context_key(request.header.ctx_id),)


def _both(request: Request, asked: Any) -> tuple[Key, ...]:
    return context_key(request.header.ctx_id), resource_key(asked.resource_id)


def _scanout(_request: Request, asked: Any) -> tuple[Key, ...]:
    return scanout_key(asked.scanout_id), resource_key(asked.resource_id)
