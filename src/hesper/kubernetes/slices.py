"""What the scheduler is told of this node's devices: one ResourceSlice.

Source: `resource.k8s.io/v1` in Kubernetes' API reference.  A pool has a generation, which grows
with each change of it; at most 128 devices are in a slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hesper.containers.cdi import ALL, CLASS_PREFIX
from hesper.kubernetes.api_server import RESOURCES, ApiError, ApiServer
from hesper.kubernetes.rpc import KubernetesError
from hesper.log import get_logger

if TYPE_CHECKING:
    from hesper.kubernetes.devices import NodeDevice

DRIVER = "gpu.hesper.dev"
MOST_DEVICES = 128

_NOT_FOUND = 404
_log = get_logger(__name__)


@dataclass(frozen=True)
class Capacity:
    """What the claims of a device divide among them."""

    total: int
    each: int | None = None
    """What each takes, as the server holds each to as much; None: what it asks for, and all of it
    where it asks for nothing."""

    @property
    def told(self) -> dict[str, Any]:
        """The same as a DeviceCapacity."""
        if self.each is None:
            return {"value": str(self.total)}
        each = str(self.each)
        policy = {"default": each, "validValues": [each]}
        return {"value": str(self.total), "requestPolicy": policy}


@dataclass(frozen=True)
class SliceOptions:
    """How the devices of a node are told."""

    node: str
    shares: int
    """Claims that may have one device, where no capacity of it is told."""
    capacity: Mapping[str, Mapping[str, Capacity]] = field(default_factory=dict)
    """What the claims of a device may have together, by the device's name: `memory` in bytes, or
    `weight`.  Such a device is told once, to be allocated many times: consumable capacity, which
    the cluster must have switched on."""


def slice_devices(devices: Mapping[str, NodeDevice], options: SliceOptions) -> list[dict[str, Any]]:
    """`spec.devices` for those that are healthy.

    Raises `KubernetesError` for too many, and for two of one name.
    """
    rows: list[dict[str, Any]] = []
    for name in sorted(devices):
        if not devices[name].is_healthy:
            continue
        label = "all" if name == ALL else name.removeprefix(CLASS_PREFIX)
        attributes = {"class": {"string": label}}
        if name in options.capacity:
            capacity = {what: each.told for what, each in options.capacity[name].items()}
            shared = {"allowMultipleAllocations": True, "capacity": capacity}
            rows.append({"name": name, "attributes": attributes, **shared})
        else:
            uses = map(devices[name].share, range(options.shares))
            rows += [{"name": use, "attributes": attributes} for use in uses]
    names = [str(row["name"]) for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise KubernetesError(
            f"two devices would be called {twice[0]}, a use of one as another is: give one of the"
            " classes another name"
        )
    if len(rows) > MOST_DEVICES:
        raise KubernetesError(
            f"{len(rows)} devices are too many for a ResourceSlice, which has room for"
            f" {MOST_DEVICES}: allow fewer uses of each (--shares)"
        )
    return rows


class Publisher:
    """Keeps this node's ResourceSlice as it should be."""

    def __init__(self, server: ApiServer, options: SliceOptions) -> None:
        """Nothing is told before `publish`."""
        self._server = server
        self._options = options
        self._owner: dict[str, Any] | None = None

    async def publish(self, devices: Mapping[str, NodeDevice]) -> None:
        """Tell what `devices` are there; without a healthy one there is no slice.

        Raises `ApiError`, where others were faster as well, and `KubernetesError`.
        """
        wanted = slice_devices(devices, self._options)
        ours = await self._list()
        kept = ours[0] if ours and wanted else None
        for extra in ours[1:] if kept else ours:
            await self._change("DELETE", f"/{extra['metadata']['name']}")
        if kept is None:
            if wanted:
                await self._change("POST", "", await self._slice(wanted, 1))
            return
        if kept["spec"].get("devices") == wanted:
            return
        generation = kept["spec"]["pool"]["generation"] + 1
        body = await self._slice(wanted, generation)
        # With its version: who has changed it since wins.
        body["metadata"] = kept["metadata"]
        await self._change("PUT", f"/{kept['metadata']['name']}", body)

    async def withdraw(self) -> None:
        """Tell of no devices.  Raises `ApiError`."""
        await self.publish({})

    async def _list(self) -> list[dict[str, Any]]:
        query = {"fieldSelector": f"spec.nodeName={self._options.node},spec.driver={DRIVER}"}
        found = await self._server.call("GET", f"{RESOURCES}/resourceslices", query=query)
        items = found.get("items") or []
        return sorted(items, key=lambda item: str(item["metadata"]["name"]))

    async def _change(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        try:
            await self._server.call(method, f"{RESOURCES}/resourceslices{path}", body)
        except ApiError as error:
            if method != "DELETE" or error.status != _NOT_FOUND:
                raise
        _log.info("told the scheduler", change=method)

    async def _slice(self, devices: list[dict[str, Any]], generation: int) -> dict[str, Any]:
        node = self._options.node
        if self._owner is None:
            found = await self._server.call("GET", f"/api/v1/nodes/{node}")
            # With the node goes the slice.
            owner = {"apiVersion": "v1", "kind": "Node", "name": node, "controller": True}
            self._owner = {**owner, "uid": found["metadata"]["uid"]}
        pool = {"name": node, "generation": generation, "resourceSliceCount": 1}
        return {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"generateName": f"{node}-{DRIVER}-", "ownerReferences": [self._owner]},
            "spec": {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices},
        }
