"""gRPC on Unix sockets: services of messages that are known by name, and calls of others'."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from hesper.errors import HesperError
from hesper.kubernetes.messages import message

CALL_SECONDS = 10.0
"""How long a kubelet has to answer."""


class KubernetesError(HesperError):
    """A kubelet, or an API server, that does not want what it is offered, or cannot be reached."""


@dataclass(frozen=True)
class Method:
    """A method of a service: its name, its messages' names, and what answers."""

    name: str
    request: str
    response: str
    answer: Callable[[Any, Any], Awaitable[Any]] | Callable[[Any, Any], AsyncIterator[Any]]
    """Takes the request and gRPC's context."""
    is_stream: bool = False
    """Whether there are many answers to one request."""


def service(package: str, name: str, methods: Iterable[Method]) -> Any:
    """A service, to be served; the methods' messages are those of `package`."""
    handlers = {}
    for method in methods:
        kind = grpc.unary_unary_rpc_method_handler
        if method.is_stream:
            kind = grpc.unary_stream_rpc_method_handler
        handlers[method.name] = kind(
            method.answer,
            request_deserializer=message(package, method.request).FromString,
            response_serializer=message(package, method.response).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(f"{package}.{name}", handlers)


class Listener:
    """Services on a socket, which can be removed by others: a kubelet does, when it starts.

    Not started before `ensure`.
    """

    def __init__(self, path: Path, services: Iterable[Any]) -> None:
        """Serve `services` on the socket `path`, whose folder is made."""
        self.path = path
        self._services = list(services)
        self._server: Any = None
        self._identity: object = None

    async def ensure(self) -> bool:
        """Listen, if that is not so, or if the socket is no longer ours; whether it was not so.

        Raises `KubernetesError`.
        """
        if self._server is not None and identity(self.path) == self._identity:
            return False
        await self.stop(0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()  # of one that was ended and could not
        except OSError as error:
            raise KubernetesError(
                f"{self.path}: no socket can be there: {error.strerror}"
            ) from None
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(self._services)
        try:
            server.add_insecure_port(f"unix:{self.path}")
            await server.start()
            self.path.chmod(0o600)
        except (RuntimeError, OSError) as error:
            raise KubernetesError(f"{self.path}: no socket can be there: {error}") from None
        self._server, self._identity = server, identity(self.path)
        return True

    async def stop(self, grace: float) -> None:
        """Take no further calls, and end those that are not over after `grace` seconds."""
        server, self._server = self._server, None
        if server is None:
            return
        is_ours = identity(self.path) == self._identity
        await server.stop(grace)
        if is_ours:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


def identity(path: Path) -> object:
    """What tells a socket from another at the same path; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


async def call(socket: Path, package: str, method: str, request: Any, response: str) -> Any:
    """Call `Service/Method` on a socket; the answer.  Raises `grpc.aio.AioRpcError`."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        function = channel.unary_unary(
            f"/{package}.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message(package, response).FromString,
        )
        return await function(request, timeout=CALL_SECONDS)
