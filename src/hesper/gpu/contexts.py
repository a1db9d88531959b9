"""Contexts: capsets, what a context knows, its commands and its fences.

Source: VIRTIO 1.3, section 5.7.6.8 "Device Operation: controlq", 3D commands.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hesper.figures import ContextFigures
from hesper.gpu.context_client import ContextClient
from hesper.gpu.context_wire import MAX_SUBMIT
from hesper.gpu.request import OK, Answer, GpuError, Pending
from hesper.gpu.resources import Blob, Resource, ResourceTable
from hesper.gpu.wire import (
    CAPSET_INFO,
    CAPSET_UNUSED,
    CAPSET_VENUS,
    CONTEXT_INIT_CAPSET_ID_MASK,
    SUBMIT_3D,
    Response,
)
from hesper.log import get_logger
from hesper.protocol.virtgpu import MAX_TIMELINES

if TYPE_CHECKING:
    from hesper.event_loop import EventLoop
    from hesper.gpu.guest_pages import GuestPages
    from hesper.gpu.long_work import LongWork, Work
    from hesper.gpu.request import Request
    from hesper.gpu.wire import (
        CtxCreate,
        GetCapset,
        GetCapsetInfo,
        NoFields,
        ResourceId,
        Submit3d,
    )

_log = get_logger(__name__)

DROPPED_A_STEP = 256
"""Resources of a context that goes, between two looks at the clock."""

NO_WIRE_FORMAT = bytes(4)
"""What a capset begins with is the version of its wire format, from 1 on."""

Connect = Callable[[str], socket.socket]
"""Gives a socket to a fresh worker, for a program of that name.  Raises `OSError`."""


class Context:
    """A context of the guest.  Without a client it is only a name: it can run nothing."""

    def __init__(self, ctx_id: int, number: int, name: str) -> None:
        """Make one without a client.  `number`: like no other of this device, unlike the id."""
        self.id = ctx_id
        self.number = number
        self.name = name
        self.client: ContextClient | None = None
        self.resources: set[int] = set()
        """What is attached to it."""
        self.refused = ""
        """Why the last thing that was refused to it was."""
        self.has_made = False
        """Whether it has ever made a blob."""
        self.lost = ""
        """Why it can run nothing any more."""
        self.since = time.monotonic()


class Contexts:
    """The commands about contexts."""

    def __init__(
        self,
        resources: ResourceTable,
        loop: EventLoop,
        work: LongWork,
        *,
        connect: Connect,
        capset: bytes,
        limit: int,
        attachments: int,
        pages: GuestPages,
    ) -> None:
        """`limit`: live contexts.  `capset`: what Venus clients are told of the renderer.

        attachments: resources that all contexts together may know, each counted for every context.
        """
        self._resources = resources
        self._loop = loop
        self._work = work
        self._connect = connect
        self._capset = capset
        self._limit = limit
        self._pages = pages
        self._most_attachments = attachments
        self._attached: dict[int, list[Context]] = {}
        """Contexts that know a resource, by its id."""
        self._attachments = 0
        self._contexts: dict[int, Context] = {}
        self._lost = 0
        self._numbers = itertools.count(1)
        self.began: Callable[[Context], None] = lambda _: None
        """Called when something runs a new context."""

    def __len__(self) -> int:
        """Count the contexts."""
        return len(self._contexts)

    def find(self, ctx_id: int) -> Context:
        """Return the context.  Raises `GpuError` (invalid context id)."""
        context = self._contexts.get(ctx_id)
        if context is None:
            raise GpuError(Response.ERR_INVALID_CONTEXT_ID, f"no context {ctx_id}")
        return context

    def client(self, ctx_id: int) -> ContextClient:
        """Return what runs the context.

        Raises `GpuError`: invalid context id, or the context can run nothing.
        """
        context = self.find(ctx_id)
        if context.client is None:
            reason = context.lost or "it was made without a capset"
            raise GpuError(Response.ERR_UNSPEC, f"context {ctx_id} runs nothing: {reason}")
        return context.client

    # Capsets.

    def capset_info(self, _request: Request, asked: GetCapsetInfo) -> Answer:
        """`GET_CAPSET_INFO`."""
        if asked.capset_index != 0:
            raise GpuError(
                Response.ERR_INVALID_PARAMETER, f"capset index {asked.capset_index} of 1"
            )
        capset = CAPSET_UNUSED if self._pages.unfit() else CAPSET_VENUS
        return Answer(Response.OK_CAPSET_INFO, CAPSET_INFO.pack(capset, 0, len(self._capset)))

    def capset(self, _request: Request, asked: GetCapset) -> Answer:
        """`GET_CAPSET`."""
        if asked.id != CAPSET_VENUS or asked.version != 0:
            raise GpuError(
                Response.ERR_INVALID_PARAMETER, f"capset {asked.id} version {asked.version}"
            )
        # With a wire format that it does not know, Mesa's Venus has no device, and nothing fails.
        # By now the guest may have shown what it had not when it asked for the capset's number.
        capset = NO_WIRE_FORMAT + self._capset[4:] if self._pages.unfit() else self._capset
        return Answer(Response.OK_CAPSET, capset)

    # Life and resources of a context.

    def create(self, request: Request, asked: CtxCreate) -> None:
        """`CTX_CREATE`."""
        ctx_id = request.header.ctx_id
        if ctx_id == 0 or ctx_id in self._contexts:
            raise GpuError(Response.ERR_INVALID_CONTEXT_ID, f"context id {ctx_id} is 0 or taken")
        if len(self._contexts) >= self._limit:
            raise GpuError(Response.ERR_OUT_OF_MEMORY, f"{self._limit} contexts are live")
        capset = asked.context_init & CONTEXT_INIT_CAPSET_ID_MASK
        if capset not in {0, CAPSET_VENUS}:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"context of capset {capset}")
        text = asked.name[: asked.length].partition(b"\0")[0].decode(errors="replace")
        name = "".join(c if c.isprintable() else "?" for c in text)
        context = Context(ctx_id, next(self._numbers), name)
        if capset == CAPSET_VENUS:
            try:
                sock = self._connect(name)
            except OSError as error:
                raise GpuError(Response.ERR_OUT_OF_MEMORY, f"no worker: {error}") from error
            context.client = ContextClient(
                sock, self._loop, context.name, lambda reason: self._lose(context, reason)
            )
        # A driver makes one without a capset for a program that only ever shows its own pixels.
        self._contexts[ctx_id] = context
        if context.client is not None:
            self.began(context)

    def _lose(self, context: Context, reason: str) -> None:
        client, context.client = context.client, None
        context.lost = reason
        fields = {"context": context.id, "name": context.name, "reason": reason}
        if client is None or not client.ended_here:
            # The worker's own log says more.
            _log.debug("context lost", **fields)
            return
        # Of those the 1st, 2nd, 4th, 8th, ...: a guest can have it done again and again.
        self._lost += 1
        if self._lost & (self._lost - 1) == 0:
            _log.warning("context ended", **fields, times=self._lost)

    def destroy(self, request: Request, _asked: NoFields) -> Answer | Pending | None:
        """`CTX_DESTROY`."""
        context = self.find(request.header.ctx_id)
        del self._contexts[context.id]
        if context.client is not None:
            if not context.client.submitted:
                self._explain_no_ring(context)
            context.client.close()
        return self._work.run(self._drop_all(context))

    def _explain_no_ring(self, context: Context) -> None:
        """Say why a context has gone that could run something, and has run nothing."""
        reason = self._pages.why_no_ring(context.refused, has_made=context.has_made)
        _log.of("no ring").warning(
            "a program's Vulkan has ended before it began: it has made no ring",
            context=context.id,
            name=context.name,
            reason=reason or "unknown: nothing was refused",
        )

    def note_refusal(self, ctx_id: int, reason: str) -> None:
        """Remember why something was refused to a context, should it end for that."""
        context = self._contexts.get(ctx_id)
        if context is not None:
            context.refused = reason

    def _drop_all(self, context: Context) -> Work:
        """Note that a context knows nothing any more."""
        while context.resources:
            for _ in range(min(len(context.resources), DROPPED_A_STEP)):
                self._drop(context.resources.pop(), context)
            yield
        return None

    def end(self, ctx_id: int, reason: str) -> None:
        """End what runs a context, if there is any; the context is lost."""
        context = self._contexts.get(ctx_id)
        if context is not None and context.client is not None:
            context.client.end(reason)

    def attach(self, request: Request, asked: ResourceId) -> None:
        """`CTX_ATTACH_RESOURCE`."""
        context = self.find(request.header.ctx_id)
        resource = self._resources.find(asked.resource_id)
        if resource.id in context.resources:
            # The context that has made it knows it.
            return
        self._note(context, resource)
        if (
            context.client is not None
            and isinstance(resource, Blob)
            and resource.descriptor is not None
        ):
            context.client.import_resource(resource.id, resource.descriptor, resource.size)

    def note_attached(self, ctx_id: int, resource: Resource) -> None:
        """Note that a context knows a resource, which it has just made."""
        context = self._contexts.get(ctx_id)
        if context is not None:
            context.has_made = True
            self._note(context, resource)

    def _note(self, context: Context, resource: Resource) -> None:
        if self._attachments >= self._most_attachments:
            raise GpuError(
                Response.ERR_OUT_OF_MEMORY,
                f"{self._attachments} resources are attached to contexts",
            )
        context.resources.add(resource.id)
        self._attached.setdefault(resource.id, []).append(context)
        self._attachments += 1

    def _drop(self, resource_id: int, context: Context) -> None:
        """Note that a context knows a resource no more; what the context itself notes stays."""
        self._attachments -= 1
        known = self._attached[resource_id]
        known.remove(context)
        if not known:
            del self._attached[resource_id]

    def detach(self, request: Request, asked: ResourceId) -> None:
        """`CTX_DETACH_RESOURCE`."""
        context = self.find(request.header.ctx_id)
        resource = self._resources.find(asked.resource_id)
        if resource.id not in context.resources:
            raise GpuError(
                Response.ERR_INVALID_RESOURCE_ID,
                f"resource {resource.id} is not attached to context {context.id}",
            )
        context.resources.discard(resource.id)
        self._drop(resource.id, context)
        self._forget_in(context, resource)

    def forget(self, resource: Resource) -> None:
        """Make every context forget `resource`: it is about to go."""
        for context in tuple(self._attached.get(resource.id, ())):
            context.resources.discard(resource.id)
            self._drop(resource.id, context)
            self._forget_in(context, resource)

    @staticmethod
    def _forget_in(context: Context, resource: Resource) -> None:
        if context.client is not None and isinstance(resource, Blob) and resource.host:
            context.client.destroy_resource(resource.id)

    # Commands and fences.

    def submit(self, request: Request, asked: Submit3d) -> Pending | None:
        """`SUBMIT_3D`; the commands follow.

        What asks for no fence is answered when the worker has room for it, so that nothing piles
        up here.
        """
        client = self.client(request.header.ctx_id)
        commands = request.body[SUBMIT_3D.size :]
        if len(commands) != asked.size:
            raise GpuError(
                Response.ERR_INVALID_PARAMETER,
                f"{asked.size} bytes of commands in {len(commands)}",
            )
        if asked.size > MAX_SUBMIT:
            raise GpuError(
                Response.ERR_OUT_OF_MEMORY,
                f"{asked.size} bytes of commands, {MAX_SUBMIT} at most",
            )
        if request.fenced:
            # Its fence is told to the worker next, and says when it is done.
            client.submit(commands, None)
            return None
        pending = Pending(in_order=True)
        client.submit(commands, lambda: pending.finish(OK))
        return pending

    def fence(self, ctx_id: int, ring_idx: int, retired: Callable[[], None]) -> None:
        """Call `retired` when a timeline of a context is done; at once if it runs nothing.

        Raises `GpuError` for a context or timeline that there cannot be.
        """
        context = self.find(ctx_id)
        if ring_idx >= MAX_TIMELINES:
            raise GpuError(Response.ERR_INVALID_PARAMETER, f"timeline {ring_idx}")
        if context.client is None:
            retired()
        else:
            context.client.fence(ring_idx, retired)

    def figures(self, seconds: float = 0.0) -> list[ContextFigures]:
        """Return what the contexts that run do, as of the last call; ask for newer figures.

        seconds: time their queues for so long from now on.
        """
        running = []
        now = time.monotonic()
        for context in self._contexts.values():
            if context.client is not None:
                context.client.ask_figures(seconds)
                running.append(
                    ContextFigures.of(
                        context.number,
                        context.name,
                        context.client.figures,
                        seconds=now - context.since,
                    )
                )
        return running

    def running(self) -> list[Context]:
        """The contexts that something runs."""
        return [context for context in self._contexts.values() if context.client is not None]

    def reset(self) -> None:
        """End all contexts."""
        contexts, self._contexts = self._contexts, {}
        self._attached = {}
        self._attachments = 0
        for context in contexts.values():
            if context.client is not None:
                context.client.close()
