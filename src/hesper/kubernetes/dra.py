"""The DRA driver: devices that pods claim, and the scheduler allocates.

Source: Kubernetes' `pkg/apis/pluginregistration/v1` and `pkg/apis/dra/v1` and `v1beta1`, and
"Dynamic Resource Allocation" in its documentation.  A kubelet looks for sockets in its registry's
folder, asks there where the driver is and what it speaks, and calls it there.  Nothing is kept of a
claim: a container that has one gets a socket, and gives nothing back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hesper.kubernetes import rpc
from hesper.kubernetes.api_server import RESOURCES, ApiError, ApiServer
from hesper.kubernetes.device_plugin import DRAIN_SECONDS, LOOK_SECONDS, wait
from hesper.kubernetes.devices import NodeDevice, name_of, node_devices
from hesper.kubernetes.messages import DRA_V1, DRA_V1BETA1, REGISTRATION, message
from hesper.kubernetes.slices import DRIVER, Publisher, SliceOptions
from hesper.log import get_logger

PLUGIN_TYPE = "DRAPlugin"
SUPPORTED = {"v1.DRAPlugin": DRA_V1, "v1beta1.DRAPlugin": DRA_V1BETA1}
"""What a kubelet may choose from, and the package of its messages; the newest first."""

PUBLISH_SECONDS = 60.0
"""After which the slice is looked at, though nothing has changed: kubelets remove slices, too."""

_log = get_logger(__name__)


class DraDriver:
    """The driver of this node's devices."""

    def __init__(self, kubelet: Path, server: ApiServer, options: SliceOptions) -> None:
        """`kubelet` is its folder, /var/lib/kubelet."""
        self.devices: Mapping[str, NodeDevice] = {}
        self._server = server
        self._options = options
        self._refusal = ""
        services = [
            rpc.service(package, "DRAPlugin", self._methods(package))
            for package in SUPPORTED.values()
        ]
        self._driver = rpc.Listener(kubelet / "plugins" / DRIVER / "dra.sock", services)
        methods = [
            rpc.Method("GetInfo", "InfoRequest", "PluginInfo", self._info),
            rpc.Method(
                "NotifyRegistrationStatus",
                "RegistrationStatus",
                "RegistrationStatusResponse",
                self._notified,
            ),
        ]
        registry = kubelet / "plugins_registry" / f"{DRIVER}-reg.sock"
        registration = [rpc.service(REGISTRATION, "Registration", methods)]
        self._registration = rpc.Listener(registry, registration)

    def _methods(self, package: str) -> list[rpc.Method]:
        async def prepare(request: Any, _: Any) -> Any:
            response = message(package, "NodePrepareResourcesResponse")()
            for claim in request.claims:
                answer = response.claims[claim.uid]
                try:
                    for device in await self._allocated(claim):
                        answer.devices.add(**device)
                except (rpc.KubernetesError, KeyError, TypeError) as error:
                    answer.Clear()
                    answer.error = str(error) or repr(error)
                    _log.warning("a claim cannot be prepared", claim=claim.name, why=answer.error)
            return response

        async def unprepare(request: Any, _: Any) -> Any:
            response = message(package, "NodeUnprepareResourcesResponse")()
            for claim in request.claims:
                response.claims[claim.uid].Clear()
            return response

        return [
            rpc.Method(
                "NodePrepareResources",
                "NodePrepareResourcesRequest",
                "NodePrepareResourcesResponse",
                prepare,
            ),
            rpc.Method(
                "NodeUnprepareResources",
                "NodeUnprepareResourcesRequest",
                "NodeUnprepareResourcesResponse",
                unprepare,
            ),
        ]

    async def attend(self) -> None:
        """Be there for the kubelet.  Raises `rpc.KubernetesError` if it wants no such driver."""
        if self._refusal:
            raise rpc.KubernetesError(f"the kubelet does not take {DRIVER}: {self._refusal}")
        # It is called as soon as it is found.
        await self._driver.ensure()
        await self._registration.ensure()

    async def drain(self) -> None:
        """Be no driver any more, and let calls end."""
        await self._registration.stop(DRAIN_SECONDS)
        await self._driver.stop(DRAIN_SECONDS)

    async def _info(self, _: Any, __: Any) -> Any:
        return message(REGISTRATION, "PluginInfo")(
            type=PLUGIN_TYPE,
            name=DRIVER,
            endpoint=str(self._driver.path),
            supported_versions=list(SUPPORTED),
        )

    async def _notified(self, request: Any, _: Any) -> Any:
        if request.plugin_registered:
            _log.info("registered with the kubelet", driver=DRIVER)
        else:
            self._refusal = request.error or "it does not say why"
        return message(REGISTRATION, "RegistrationStatusResponse")()

    async def _allocated(self, claim: Any) -> list[dict[str, Any]]:
        """The devices that a claim has of ours, as fields of the answer.

        Raises `rpc.KubernetesError`, and what a claim raises that lacks what it should have.
        """
        for part in (claim.namespace, claim.name):
            # They become a part of a path.
            if not part or not set(part) <= _NAME_LETTERS:
                raise rpc.KubernetesError(f"a claim cannot be called {part!r}")
        path = f"{RESOURCES}/namespaces/{claim.namespace}/resourceclaims/{claim.name}"
        found = await self._server.call("GET", path)
        if found["metadata"]["uid"] != claim.uid:
            raise rpc.KubernetesError(f"the claim {claim.name} is another by now")
        allocation = found.get("status", {}).get("allocation")
        if not allocation:
            raise rpc.KubernetesError(f"the claim {claim.name} is not allocated")
        rows = []
        for result in allocation.get("devices", {}).get("results") or []:
            if result["driver"] != DRIVER:
                continue
            device = self._device(result["pool"], result["device"])
            rows.append(
                {
                    "request_names": [result["request"]],
                    "pool_name": result["pool"],
                    "device_name": result["device"],
                    "cdi_device_ids": [device.cdi_name],
                }
            )
        return rows

    def _device(self, pool: str, name: str) -> NodeDevice:
        options = self._options
        device = self.devices.get(name if name in options.capacity else name_of(name))
        if pool != options.node or device is None:
            raise rpc.KubernetesError(f"{DRIVER} has no device {name} in {pool}")
        if not device.is_healthy:
            raise rpc.KubernetesError(f"no server answers on {device.socket}")
        return device


_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


async def serve(
    kubelet: Path,
    cdi_folders: Sequence[Path],
    server: ApiServer,
    options: SliceOptions,
    over: asyncio.Event,
) -> None:
    """Be the DRA driver of this node until `over`.

    Raises `rpc.KubernetesError` and `cdi.CdiError`; an API server that does not answer is asked
    again.
    """
    driver = DraDriver(kubelet, server, options)
    publisher = Publisher(server, options)
    loop = asyncio.get_running_loop()
    told: Mapping[str, NodeDevice] | None = None
    missing: set[str] = set()
    told_at = 0.0
    try:
        while not over.is_set():
            driver.devices = await asyncio.to_thread(node_devices, cdi_folders)
            absent = set(options.capacity) - set(driver.devices)
            for name in sorted(absent - missing):
                _log.warning("no CDI file has a device whose capacity is given", device=name)
            missing = absent
            await driver.attend()
            if driver.devices != told or loop.time() - told_at > PUBLISH_SECONDS:
                try:
                    await publisher.publish(driver.devices)
                    told, told_at = driver.devices, loop.time()
                except ApiError as error:
                    _log.warning("the scheduler was not told", why=str(error))
            await wait(over, LOOK_SECONDS)
    finally:
        await driver.drain()
        try:
            await publisher.withdraw()
        except ApiError as error:
            _log.warning("the scheduler was not told", why=str(error))
