"""The DRA driver, as a kubelet and an API server see it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from cluster import ApiServer, Server, claim, ended, hesper
from kubelet import PluginWatcher, call, refused, until
from wire import encode

if TYPE_CHECKING:
    from conftest import Node

DRIVER = "gpu.hesper.dev"
MINE = ("space", "uid-1", "mine")


def result(device: str, request: str = "gpu", **changes: str) -> dict[str, Any]:
    return {"driver": DRIVER, "pool": "node-1", "device": device, "request": request} | changes


@contextlib.asynccontextmanager
async def api_server(node: Node) -> AsyncIterator[ApiServer]:
    server = ApiServer(node.folder / "account")
    await server.start()
    try:
        yield server
        assert server.problems == []
    finally:
        await server.stop()


def driver(node: Node, api: ApiServer, *more: object, shares: int = 2) -> Any:
    place = ["--api-server", api.url, "--account", api.account]
    return hesper("dra", "--node", "node-1", "--shares", shares, *node.options, *place, *more)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_claims_are_prepared(node: Node, version: str) -> None:
    async def cluster() -> None:
        async with api_server(node) as api, driver(node, api) as process:
            watcher = PluginWatcher(node.kubelet, speaks=version)
            assert await watcher.register() == DRIVER
            await until(lambda: api.devices == ["all-0", "all-1"])
            api.claims["space/mine"] = claim(
                "uid-1",
                result("all-1"),
                result("gpu-7", driver="gpu.other.com", pool="elsewhere"),
                result("all-0", request="second"),
            )
            expected = [
                (["gpu"], "node-1", "all-1", ["hesper.dev/gpu=all"]),
                (["second"], "node-1", "all-0", ["hesper.dev/gpu=all"]),
            ]
            for _ in "once", "and once more, after the kubelet has forgotten":
                assert await watcher.prepare(MINE) == {"uid-1": (expected, "")}
            assert await watcher.prepare() == {}
            other = ("space", "uid-2", "other")
            answer = await watcher.prepare(MINE, other)
            assert answer["uid-1"] == (expected, ""), "one claim's error is not another's"
            assert answer["uid-2"][0] == []
            assert "no such claim" in answer["uid-2"][1]
            assert await watcher.unprepare(MINE, other) == {"uid-1": "", "uid-2": ""}
            # A kubelet that is started anew asks again, at the same sockets.
            assert await PluginWatcher(node.kubelet, speaks=version).register() == DRIVER
            for garbage in (b"\xff", b"\x0a\xff", os.urandom(64), encode((1, b"\xff"))):
                status, _ = await refused(watcher.call("NodePrepareResources", garbage))
                assert status in {"INTERNAL", "UNKNOWN"}
            assert await watcher.prepare(MINE) == {"uid-1": (expected, "")}
            end, said = await ended(process)
            assert end == 0, said
            assert api.slices == {}, "drained: the scheduler gives nobody what is gone"
            assert list(watcher.registry.iterdir()) == []
            assert not watcher.driver.exists()

    asyncio.run(cluster())


def test_what_cannot_be_prepared_is_said(node: Node) -> None:
    async def cluster() -> None:
        async with api_server(node) as api, driver(node, api):
            watcher = PluginWatcher(node.kubelet)
            await watcher.register()
            await until(lambda: api.devices)

            async def error(found: dict[str, Any] | None, wanted: Any = MINE) -> str:
                api.claims = {} if found is None else {"space/mine": found}
                ((devices, text),) = (await watcher.prepare(wanted)).values()
                assert devices == []
                return str(text)

            assert "is another by now" in await error(claim("uid-9", result("all-0")))
            assert "is not allocated" in await error(claim("uid-1", allocated=False))
            says = await error(claim("uid-1", result("all-0"), result("class-gold-0")))
            assert says == f"{DRIVER} has no device class-gold-0 in node-1"
            says = await error(claim("uid-1", result("all-0", pool="node-2")))
            assert says == f"{DRIVER} has no device all-0 in node-2"
            assert await error({}) == "'metadata'"
            assert "'driver'" in await error(claim("uid-1", {"device": "all-0"}))
            for name in ("../../../nodes/x", "a/b", "", "a?b", "a%2fb"):
                says = await error(None, ("space", "uid-1", name))
                assert says == f"a claim cannot be called {name!r}"
            node.server.stop()
            await until(lambda: api.slices == {})
            says = await error(claim("uid-1", result("all-0")))
            assert says == f"no server answers on {node.server.path}"
            api.renew_token("second")
            api.claims["space/mine"] = claim("uid-1", result("gpu", driver="gpu.other.com"))
            assert await watcher.prepare(MINE) == {"uid-1": ([], "")}, "by the new token"

    asyncio.run(cluster())


def test_the_scheduler_is_told_what_there_is(node: Node) -> None:
    async def cluster() -> None:
        async with api_server(node) as api, driver(node, api):
            await until(lambda: api.devices == ["all-0", "all-1"])
            gold = Server(node.folder / "gold" / "vtest")
            gold.start()
            api.conflicts = 2  # others are faster; it is tried again
            node.write_devices(gold=gold)
            names = ["all-0", "all-1", "class-gold-0", "class-gold-1"]
            await until(lambda: api.devices == names)
            assert api.conflicts == 0
            (body,) = api.slices.values()
            assert body["spec"]["devices"][2]["attributes"] == {"class": {"string": "gold"}}
            node.server.stop()
            await until(lambda: api.devices == names[2:])
            gold.stop()
            await until(lambda: api.slices == {})
            node.server.start()
            await until(lambda: api.devices == names[:2])

    asyncio.run(cluster())


def test_memory_is_shared_as_consumable_capacity(node: Node) -> None:
    async def cluster() -> None:
        async with api_server(node) as api, driver(node, api, "--memory", "all=16G"):
            await until(lambda: api.devices == ["all"])
            (body,) = api.slices.values()
            assert body["spec"]["devices"] == [
                {
                    "name": "all",
                    "attributes": {"class": {"string": "all"}},
                    "allowMultipleAllocations": True,
                    "capacity": {"memory": {"value": str(16 << 30)}},
                }
            ]
            watcher = PluginWatcher(node.kubelet)
            await watcher.register()
            share = {"shareID": "a671734a-e8e5-11e4-8fde-42010af09327"}
            api.claims["space/mine"] = claim("uid-1", result("all") | share)
            expected = [(["gpu"], "node-1", "all", ["hesper.dev/gpu=all"])]
            assert await watcher.prepare(MINE) == {"uid-1": (expected, "")}

    asyncio.run(cluster())


def test_what_a_class_holds_each_claim_to_is_what_it_takes(node: Node) -> None:
    """Memory and weight, of a device for each class; one without is told as often as may be."""

    async def cluster() -> None:
        gold = Server(node.folder / "gold" / "vtest")
        gold.start()
        node.write_devices(gold=gold)
        arguments = ("--memory", "gold=32G/8G", "--weight", "gold=100/4", "--weight", "iron=9")
        async with api_server(node) as api, driver(node, api, *arguments) as process:
            await until(lambda: api.devices == ["all-0", "all-1", "class-gold"])
            (body,) = api.slices.values()
            size, weight = str(8 << 30), "4"
            assert body["spec"]["devices"][2]["capacity"] == {
                "memory": {
                    "value": str(32 << 30),
                    "requestPolicy": {"default": size, "validValues": [size]},
                },
                "weight": {
                    "value": "100",
                    "requestPolicy": {"default": weight, "validValues": [weight]},
                },
            }
            watcher = PluginWatcher(node.kubelet)
            await watcher.register()
            api.claims["space/mine"] = claim("uid-1", result("class-gold"))
            expected = [(["gpu"], "node-1", "class-gold", ["hesper.dev/gpu=class-gold"])]
            assert await watcher.prepare(MINE) == {"uid-1": (expected, "")}
            status, said = await ended(process)
            assert status == 0
            assert said.count("no CDI file has a device whose capacity is given") == 1
            assert "device=class-iron" in said
        gold.stop()

    asyncio.run(cluster())


def test_two_devices_of_one_name_are_refused(node: Node) -> None:
    async def cluster() -> None:
        servers = {name: Server(node.folder / name / "vtest") for name in ("gold", "gold-1")}
        for each in servers.values():
            each.start()
        node.write_devices(**servers)
        async with (
            api_server(node) as api,
            driver(node, api, "--memory", "gold-1=8G") as process,
        ):
            status, said = await ended(process, stop=False)
            assert status == 1
            assert "two devices would be called class-gold-1" in said
        for each in servers.values():
            each.stop()

    asyncio.run(cluster())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--memory", "16G"], "NAME=TOTAL"),
        (["--memory", "all=lots"], "is no size"),
        (["--memory", "all=1G", "--memory", "all=2G"], "stands there twice"),
        (["--memory", "gold=8G/16G"], "less in all"),
        (["--weight", "gold=0"], "is no weight"),
        (["--weight", "gold=nan"], "is no weight"),
        (["--weight", "gold=100/"], "is no weight"),
    ],
)
def test_no_capacity_that_cannot_be(arguments: list[str], says: str) -> None:
    async def run() -> None:
        async with hesper("dra", "--node", "n", *arguments) as process:
            status, said = await ended(process, stop=False)
        assert status != 0
        assert says in " ".join(said.replace("│", " ").split())

    asyncio.run(run())


def test_an_api_server_that_is_away_is_asked_again(node: Node) -> None:
    async def cluster() -> None:
        api = ApiServer(node.folder / "account")
        await api.start()
        port = int(api.url.rpartition(":")[2])
        await api.stop()
        async with driver(node, api) as process:
            watcher = PluginWatcher(node.kubelet)
            await watcher.register()
            ((devices, says),) = (await watcher.prepare(MINE)).values()
            assert devices == []
            assert says.startswith("the API server does not answer: GET /apis/resource.k8s.io/v1/")
            await api.start(port)
            await until(lambda: api.devices == ["all-0", "all-1"])
            await api.stop()
            status, said = await ended(process)
            assert status == 0, "it cannot say that it goes; the kubelet removes its slices"
            assert "the scheduler was not told" in said
        assert api.problems == []

    asyncio.run(cluster())


def test_what_others_left_is_taken_over(node: Node) -> None:
    """A driver that was killed has left its slice and its sockets; one slice is too many."""

    async def cluster() -> None:
        async with api_server(node) as api:
            async with driver(node, api):
                await until(lambda: api.devices)
                await PluginWatcher(node.kubelet).register()
            (name,) = api.slices
            api.slices["zzz"] = api.slices[name] | {"metadata": {"name": "zzz"}}
            async with driver(node, api) as process:
                await until(lambda: list(api.slices) == [name])
                watcher = PluginWatcher(node.kubelet)
                # Its socket may still be the other's.
                async with asyncio.timeout(60):
                    while True:
                        with contextlib.suppress(Exception):
                            await watcher.register()
                            break
                for socket in watcher.registry.iterdir():
                    socket.unlink()
                await watcher.register()
                status, said = await ended(process)
                assert status == 0, said

    asyncio.run(cluster())


def test_a_kubelet_s_refusal_ends_it(node: Node) -> None:
    async def cluster() -> None:
        async with api_server(node) as api:
            async with driver(node, api) as process:
                await until(lambda: api.devices)
                await PluginWatcher(node.kubelet).register("no such version")
                status, said = await ended(process, stop=False)
            assert status == 1
            assert said.splitlines()[-1] == (
                f"hesper: the kubelet does not take {DRIVER}: no such version"
            )
            assert api.slices == {}

    asyncio.run(cluster())


def test_what_is_missing_is_said(node: Node) -> None:
    async def cluster() -> None:
        api = ApiServer(node.folder / "account")
        for arguments, says in (
            (["dra"], "hesper: which node is this? Say --node NAME, or set NODE_NAME"),
            (["dra", "--node", "n"], "hesper: no API server: pods have KUBERNETES_SERVICE_HOST;"),
            (
                ["dra", "--node", "n", "--api-server", "https://x", "--account", api.account],
                f"hesper: {api.account}/ca.crt: ",
            ),
            (
                ["plugin", *node.options, "--shares", "0"],
                'Invalid value "0" for --shares. Must be 1 to 1000',
            ),
        ):
            async with hesper(*arguments) as process:
                status, said = await ended(process, stop=False)
            assert status != 0
            assert says.lower() in " ".join(said.lower().split()), said
        (node.cdi / "hesper.json").write_text('{"kind": "hesper.dev/gpu"}')
        async with hesper("plugin", *node.options) as process:
            status, said = await ended(process, stop=False)
        assert status == 1
        assert "no CDI file of Hesper's" in said

    asyncio.run(cluster())


def test_too_many_devices_are_refused(node: Node) -> None:
    async def cluster() -> None:
        async with api_server(node) as api, driver(node, api, shares=129) as process:
            status, said = await ended(process, stop=False)
            assert status == 1
            assert "129 devices are too many for a ResourceSlice" in said

    asyncio.run(cluster())


def test_no_method_is_served_that_is_not_offered(node: Node) -> None:
    async def cluster() -> None:
        async with api_server(node) as api, driver(node, api):
            watcher = PluginWatcher(node.kubelet)
            await watcher.register()
            for method in (
                "/k8s.io.kubelet.pkg.apis.dra.v1alpha4.Node/NodePrepareResources",
                "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeListAndWatchResources",
            ):
                status, _ = await refused(call(watcher.driver, method, b""))
                assert status == "UNIMPLEMENTED"

    asyncio.run(cluster())
