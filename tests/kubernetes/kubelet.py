"""A kubelet that is strict: its device manager, its plugin watcher, and its calls of DRA drivers.

It knows the published definitions by their numbers (`wire`), not Hesper's messages.  Its sockets
are removed when it starts, as a kubelet's device manager does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from wire import decode, encode, text, texts

BOUND = 180.0
"""Seconds in which what is waited for must come."""

RESOURCE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+/[-a-z0-9]+")


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds; what it says then."""
    async with asyncio.timeout(BOUND):
        while not (found := condition()):
            await asyncio.sleep(0.02)
        return found


async def call(socket: Path, method: str, request: bytes) -> bytes:
    """Call a method on a socket."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        answer: bytes = await channel.unary_unary(method)(request, timeout=BOUND)
        return answer


class DeviceManager:
    """The part of a kubelet that device plugins register with."""

    def __init__(self, kubelet: Path) -> None:
        self.folder = kubelet / "device-plugins"
        self.registered: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        """Resources and endpoints, as they come."""
        self.refusal = ""
        self._server: Any = None

    async def start(self) -> None:
        """Start, as after a reboot or an update: sockets of plugins are removed first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()
        self._server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(self._register)
        handler = grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": method})
        self._server.add_generic_rpc_handlers([handler])
        self._server.add_insecure_port(f"unix:{self.folder}/kubelet.sock")
        await self._server.start()

    async def stop(self) -> None:
        """Stop, and leave what is there, as a kubelet that is killed does."""
        await self._server.stop(0)

    async def _register(self, request: bytes, context: Any) -> bytes:
        if self.refusal:
            await context.abort(grpc.StatusCode.UNKNOWN, self.refusal)
        assert set(decode(request)) <= {1, 2, 3, 4}
        assert text(request, 1) == "v1beta1"
        endpoint, resource = text(request, 2), text(request, 3)
        assert "/" not in endpoint
        assert RESOURCE.fullmatch(resource)
        assert (self.folder / endpoint).is_socket(), "a plugin listens before it registers"
        for options in decode(request).get(4, []):
            assert options == b"", "none of what is optional is offered"
        await self.registered.put((resource, endpoint))
        return b""

    async def next(self) -> tuple[str, Path]:
        """The next registration: the resource, and the plugin's socket."""
        async with asyncio.timeout(BOUND):
            resource, endpoint = await self.registered.get()
        return resource, self.folder / endpoint


async def listed(socket: Path) -> AsyncIterator[dict[str, str]]:
    """What a device plugin says of its devices, each time: their health by their names."""
    assert await call(socket, "/v1beta1.DevicePlugin/GetDevicePluginOptions", b"") == b""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stream = channel.unary_stream("/v1beta1.DevicePlugin/ListAndWatch")(b"")
        async for answer in stream:
            assert set(decode(answer)) == {1}
            devices: dict[str, str] = {}
            for device in decode(answer)[1]:
                assert set(decode(device)) == {1, 2}
                name = text(device, 1)
                assert name not in devices
                assert len(name) <= 63
                assert text(device, 2) in {"Healthy", "Unhealthy"}
                devices[name] = text(device, 2)
            yield devices


async def next_of(stream: AsyncIterator[dict[str, str]]) -> dict[str, str]:
    """What comes next."""
    async with asyncio.timeout(BOUND):
        return await anext(stream)


async def allocate(socket: Path, *containers: list[str]) -> list[list[str]]:
    """Allocate devices to containers; the CDI devices that each gets."""
    requests = [(1, encode(*[(1, device) for device in devices])) for devices in containers]
    answer = await call(socket, "/v1beta1.DevicePlugin/Allocate", encode(*requests))
    rows = []
    for container in decode(answer).get(1, []):
        assert set(decode(container)) == {5}, "the CDI device says all"
        rows.append([text(device, 1) for device in decode(container)[5]])
    return rows


class PluginWatcher:
    """The part of a kubelet that finds DRA drivers by their sockets."""

    def __init__(self, kubelet: Path, *, speaks: str = "v1") -> None:
        """`speaks` is the version of DRA that this kubelet has."""
        self.registry = kubelet / "plugins_registry"
        self.speaks = speaks
        self.driver = Path()

    async def register(self, refusal: str = "") -> str:
        """Find the one driver there is, and take it, or refuse it; its name."""
        await until(lambda: list(self.registry.glob("*.sock")))
        (socket,) = self.registry.glob("*.sock")
        info = await call(socket, "/pluginregistration.Registration/GetInfo", b"")
        assert set(decode(info)) == {1, 2, 3, 4}
        assert text(info, 1) == "DRAPlugin"
        assert f"{self.speaks}.DRAPlugin" in texts(info, 4)
        self.driver = Path(text(info, 3))
        assert self.driver.is_absolute()
        assert self.driver.is_socket(), "it is called at once"
        assert self.driver.stat().st_mode & 0o077 == 0
        status = encode((2, refusal)) if refusal else encode((1, True))
        method = "/pluginregistration.Registration/NotifyRegistrationStatus"
        assert await call(socket, method, status) == b""
        return text(info, 2)

    async def prepare(self, *claims: tuple[str, str, str]) -> dict[str, tuple[list[Any], str]]:
        """Prepare claims (namespace, UID, name); by UID the devices, and the error."""
        answer = await self.call("NodePrepareResources", _claims(claims))
        rows = {}
        for uid, prepared in _map(answer).items():
            assert set(decode(prepared)) <= {1, 2}
            devices = [
                (texts(each, 1), text(each, 2), text(each, 3), texts(each, 4))
                for each in decode(prepared).get(1, [])
            ]
            rows[uid] = (devices, text(prepared, 2))
        assert set(rows) == {uid for _, uid, _ in claims}
        return rows

    async def unprepare(self, *claims: tuple[str, str, str]) -> dict[str, str]:
        """Undo that; by UID the error."""
        answer = await self.call("NodeUnprepareResources", _claims(claims))
        return {uid: text(each, 1) for uid, each in _map(answer).items()}

    async def call(self, method: str, request: bytes) -> bytes:
        """Call the driver."""
        service = f"/k8s.io.kubelet.pkg.apis.dra.{self.speaks}.DRAPlugin"
        return await call(self.driver, f"{service}/{method}", request)


def _claims(claims: tuple[tuple[str, str, str], ...]) -> bytes:
    return encode(*[(1, encode(*enumerate(claim, 1))) for claim in claims])


def _map(answer: bytes) -> dict[str, bytes]:
    """Field 1, a map of texts to messages."""
    assert set(decode(answer)) <= {1}
    entries = decode(answer).get(1, [])
    found = {text(entry, 1): decode(entry).get(2, [b""])[0] for entry in entries}
    assert len(found) == len(entries)
    return found


Answer = Callable[[], Awaitable[Any]]


async def refused(answer: Awaitable[Any]) -> tuple[str, str]:
    """The status and the text that a call ends with."""
    try:
        await answer
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError("it was not refused")
