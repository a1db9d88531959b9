"""An API server that is strict, a server's socket, and `hesper kubernetes` as a process."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
from aiohttp import web
from kubelet import BOUND

VERSION = "1.34"
"""Of Kubernetes: the first with resource.k8s.io/v1."""


class ApiServer:
    """The few calls of an API server that a DRA driver makes; all else is an error."""

    def __init__(self, folder: Path) -> None:
        """`folder` will be a service account's."""
        self.account = folder
        self.slices: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        """By path: NAMESPACE/NAME."""
        self.problems: list[str] = []
        """What no API server would have taken."""
        self.conflicts = 0
        """Changes that are refused, as others were faster."""
        self.url = ""
        self._count = 0
        self.renew_token("first")

    def renew_token(self, token: str) -> None:
        """Have no other token any more."""
        self.account.mkdir(exist_ok=True)
        (self.account / "token").write_text(f"{token}\n")
        self._token = token

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        slices = "/apis/resource.k8s.io/v1/resourceslices"
        app.router.add_get(slices, self._list)
        app.router.add_post(slices, self._create)
        app.router.add_put(slices + "/{name}", self._replace)
        app.router.add_delete(slices + "/{name}", self._delete)
        app.router.add_get("/api/v1/nodes/{name}", self._node)
        claims = "/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}"
        app.router.add_get(claims, self._claim)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    def _check(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            raise self._error(web.HTTPUnauthorized, "who is that?")

    def _error(self, kind: type[web.HTTPException], text: str) -> web.HTTPException:
        status = {"kind": "Status", "message": text}
        return kind(text=str(status).replace("'", '"'), content_type="application/json")

    async def _list(self, request: web.Request) -> web.Response:
        self._check(request)
        if request.query != {"fieldSelector": "spec.nodeName=node-1,spec.driver=gpu.hesper.dev"}:
            self.problems.append(f"selects {dict(request.query)}")
        return web.json_response({"kind": "ResourceSliceList", "items": [*self.slices.values()]})

    async def _body(self, request: web.Request) -> dict[str, Any]:
        self._check(request)
        if self.conflicts:
            self.conflicts -= 1
            raise self._error(web.HTTPConflict, "somebody was faster")
        body: dict[str, Any] = await request.json()
        with self._noting():
            kubernetes_validate.validate(body, VERSION, strict=True)
            check_slice(body)
        return body

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except (AssertionError, KeyError, kubernetes_validate.ValidationError) as error:
            self.problems.append(repr(error))
            raise self._error(web.HTTPUnprocessableEntity, "that is no slice") from None

    async def _create(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        self._count += 1
        name = body["metadata"].pop("generateName") + str(self._count)
        body["metadata"] |= {"name": name, "uid": name, "resourceVersion": str(self._count)}
        self.slices[name] = body
        return web.json_response(body, status=201)

    async def _replace(self, request: web.Request) -> web.Response:
        body, name = await self._body(request), request.match_info["name"]
        with self._noting():
            before = self.slices[name]
            assert body["metadata"] == before["metadata"]
            pool, old = body["spec"]["pool"], before["spec"]["pool"]
            assert pool["generation"] > old["generation"]
        self._count += 1
        body["metadata"]["resourceVersion"] = str(self._count)
        self.slices[name] = body
        return web.json_response(body)

    async def _delete(self, request: web.Request) -> web.Response:
        self._check(request)
        if request.match_info["name"] not in self.slices:
            raise self._error(web.HTTPNotFound, "no such slice")
        return web.json_response(self.slices.pop(request.match_info["name"]))

    async def _node(self, request: web.Request) -> web.Response:
        self._check(request)
        if request.match_info["name"] != "node-1":
            raise self._error(web.HTTPNotFound, "no such node")
        return web.json_response({"metadata": {"name": "node-1", "uid": "uid-of-node-1"}})

    async def _claim(self, request: web.Request) -> web.Response:
        self._check(request)
        found = self.claims.get("/".join(request.match_info.values()))
        if found is None:
            raise self._error(web.HTTPNotFound, "no such claim")
        return web.json_response(found)

    @property
    def devices(self) -> list[str]:
        """Names of the devices that the scheduler knows of."""
        return [each["name"] for one in self.slices.values() for each in one["spec"]["devices"]]


def check_slice(body: dict[str, Any]) -> None:
    """What an API server wants of a slice, besides its schema."""
    spec, node = body["spec"], "node-1"
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", node, "uid-of-node-1")
    assert spec["nodeName"] == spec["pool"]["name"] == node
    assert spec["pool"]["resourceSliceCount"] == 1
    names = [device["name"] for device in spec["devices"]]
    assert 0 < len(set(names)) == len(names) <= 128
    for name in names:
        assert len(name) <= 63
        assert name == name.lower()
        assert name.replace("-", "").isalnum()
    assert not any("nodeName" in device for device in spec["devices"])
    for device in spec["devices"]:
        for capacity in device.get("capacity", {}).values():
            check_policy(device, capacity)


def check_policy(device: dict[str, Any], capacity: dict[str, Any]) -> None:
    """What one wants of a `CapacityRequestPolicy`, by its description in the API's reference."""
    policy = capacity.get("requestPolicy")
    if policy is None:
        return
    assert device["allowMultipleAllocations"] is True
    values = list(map(int, policy["validValues"]))
    assert 0 < len(values) <= 10
    assert values == sorted(values)
    assert int(policy["default"]) in values
    assert int(policy["default"]) <= int(capacity["value"])


def claim(uid: str, *results: dict[str, Any], allocated: bool = True) -> dict[str, Any]:
    """A ResourceClaim, with what the scheduler has allocated to it."""
    body: dict[str, Any] = {"metadata": {"name": "mine", "uid": uid}, "spec": {}}
    if allocated:
        body["status"] = {"allocation": {"devices": {"results": copy.deepcopy(list(results))}}}
    return body


class Server:
    """What answers on a socket, as `hesper serve` does to whoever only connects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket: socket.socket | None = None
        path.parent.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(1000)

    def stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.path.unlink()


@contextlib.asynccontextmanager
async def hesper(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `hesper kubernetes ...`; what still runs in the end is killed."""
    script = "import sys; from hesper.cli import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        "kubernetes",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if "KUBERNETES" not in name},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process: asyncio.subprocess.Process, *, stop: bool = True) -> tuple[int, str]:
    """Stop a process as a cluster does, or wait for its end; its status, and what it said."""
    if stop:
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(BOUND):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
