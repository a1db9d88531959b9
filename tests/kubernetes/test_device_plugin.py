"""The device plugin, as a kubelet sees it: a process that is registered, watched and restarted."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from cluster import Server, ended, hesper
from kubelet import DeviceManager, allocate, call, listed, next_of, refused, until
from wire import encode

if TYPE_CHECKING:
    from conftest import Node

ALLOCATE = "/v1beta1.DevicePlugin/Allocate"
HEALTHY = {"all-0": "Healthy", "all-1": "Healthy", "all-2": "Healthy"}
UNHEALTHY = dict.fromkeys(HEALTHY, "Unhealthy")


def test_a_plugin_serves_a_kubelet(node: Node) -> None:
    async def kubelet() -> None:
        manager = DeviceManager(node.kubelet)
        await manager.start()
        async with hesper("plugin", "--shares", 3, *node.options) as plugin:
            resource, socket = await manager.next()
            assert resource == "hesper.dev/gpu"
            assert socket.stat().st_mode & 0o077 == 0
            devices = listed(socket)
            assert await next_of(devices) == HEALTHY
            assert await allocate(socket, ["all-0"]) == [["hesper.dev/gpu=all"]]
            assert await allocate(socket, ["all-0", "all-2"], ["all-1"]) == [
                ["hesper.dev/gpu=all"],
                ["hesper.dev/gpu=all"],
            ]
            assert await allocate(socket) == []
            for wrong in (["all-3"], ["all-0", "other"], [""], []):
                status, says = await refused(allocate(socket, wrong))
                assert status == "INVALID_ARGUMENT"
                assert says.startswith("hesper.dev/gpu has no device ")
            # What a plugin does not offer, and what is no message.
            empty = b""
            for method in ("PreStartContainer", "GetPreferredAllocation", "Nothing"):
                status, _ = await refused(call(socket, f"/v1beta1.DevicePlugin/{method}", empty))
                assert status == "UNIMPLEMENTED"
            for garbage in (
                b"\xff",
                b"\x0a\xff",
                b"\x0a\x05ab",
                os.urandom(64),
                encode((1, b"\xff")),
            ):
                status, _ = await refused(call(socket, ALLOCATE, garbage))
                assert status in {"INTERNAL", "UNKNOWN", "INVALID_ARGUMENT"}
            # A field of a newer kubelet's is passed over.
            newer = encode((1, encode((1, "all-0"), (99, "new"))), (7, "new"))
            assert await call(socket, ALLOCATE, newer)
            # Several watch at once: a kubelet that came back, and one that has not gone yet.
            assert await next_of(listed(socket)) == HEALTHY
            end, said = await ended(plugin)
            assert end == 0, said
            assert await next_of(devices) == UNHEALTHY, "drained"
            assert not socket.exists()
        await manager.stop()

    asyncio.run(kubelet())


def test_health_is_the_server_s(node: Node) -> None:
    async def kubelet() -> None:
        manager = DeviceManager(node.kubelet)
        await manager.start()
        async with hesper("plugin", "--shares", 3, *node.options):
            _, socket = await manager.next()
            devices = listed(socket)
            assert await next_of(devices) == HEALTHY
            node.server.stop()
            assert await next_of(devices) == UNHEALTHY
            status, says = await refused(allocate(socket, ["all-0"]))
            assert (status, says) == ("UNAVAILABLE", f"no server answers on {node.server.path}")
            node.server.start()
            assert await next_of(devices) == HEALTHY
            (node.cdi / "hesper.json").unlink()
            assert await next_of(devices) == UNHEALTHY, "its CDI file is gone"
        await manager.stop()

    asyncio.run(kubelet())


def test_a_kubelet_that_is_started_anew_hears_of_it_again(node: Node) -> None:
    async def kubelet() -> None:
        # No kubelet yet, not even its folder.
        async with hesper("plugin", "--shares", 3, *node.options) as plugin:
            manager = DeviceManager(node.kubelet)
            for _ in range(3):
                await manager.start()
                _, socket = await manager.next()
                devices = listed(socket)
                assert await next_of(devices) == HEALTHY
                assert await allocate(socket, ["all-1"]) == [["hesper.dev/gpu=all"]]
                await manager.stop()
            await manager.start()
            _, socket = await manager.next()
            socket.unlink()
            _, socket = await manager.next()
            assert await next_of(listed(socket)) == HEALTHY, "its socket alone was removed"
            assert manager.registered.empty()
            status, said = await ended(plugin)
            assert (status, "Traceback" in said) == (0, False)
        await manager.stop()

    asyncio.run(kubelet())


def test_a_kubelet_s_refusal_ends_it(node: Node) -> None:
    async def kubelet() -> None:
        manager = DeviceManager(node.kubelet)
        manager.refusal = "requested API version v1beta1 is not supported"
        await manager.start()
        async with hesper("plugin", *node.options) as plugin:
            status, said = await ended(plugin, stop=False)
        assert status == 1
        assert said.splitlines()[-1] == (
            f"hesper: the kubelet does not take hesper.dev/gpu: {manager.refusal}"
        )
        await manager.stop()

    asyncio.run(kubelet())


def test_a_class_is_a_resource_of_its_own(node: Node) -> None:
    async def kubelet() -> None:
        manager = DeviceManager(node.kubelet)
        await manager.start()
        async with hesper("plugin", "--shares", 1, *node.options):
            assert (await manager.next())[0] == "hesper.dev/gpu"
            gold = Server(node.folder / "gold" / "vtest")
            gold.start()
            node.write_devices(gold=gold)
            resource, socket = await manager.next()
            assert resource == "hesper.dev/gpu-gold"
            assert await next_of(listed(socket)) == {"class-gold-0": "Healthy"}
            assert await allocate(socket, ["class-gold-0"]) == [["hesper.dev/gpu=class-gold"]]
            gold.stop()
        await manager.stop()

    asyncio.run(kubelet())


def test_a_plugin_that_was_killed_leaves_nothing_in_the_way(node: Node) -> None:
    async def kubelet() -> None:
        manager = DeviceManager(node.kubelet)
        await manager.start()
        async with hesper("plugin", *node.options):
            _, socket = await manager.next()
        assert socket.exists(), "it was killed"
        async with hesper("plugin", *node.options) as plugin:
            _, socket = await manager.next()
            assert len(await next_of(listed(socket))) == 16
            status, said = await ended(plugin)
            assert status == 0, said
        await until(lambda: not socket.exists())
        await manager.stop()

    asyncio.run(kubelet())
