"""The device plugin: a resource for each device, which pods ask for by number.

Source: Kubernetes' device plugin API, v1beta1 (`pkg/apis/deviceplugin/v1beta1/api.proto` and
"Device Plugins" in its documentation).  The plugin registers with the kubelet, which then calls the
plugin; a kubelet that is started anew has removed all sockets, and wants to hear of it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from hesper.containers.cdi import ALL, CLASS_PREFIX, KIND
from hesper.kubernetes import rpc
from hesper.kubernetes.devices import NodeDevice, node_devices
from hesper.kubernetes.messages import DEVICE_PLUGIN, message
from hesper.log import get_logger

VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"
DRAIN_SECONDS = 5.0
"""Time that calls have to end when the plugin stops."""
LOOK_SECONDS = 1.0
"""Between two looks at sockets, the kubelet's and servers'."""

_log = get_logger(__name__)
_LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""What a kubelet that is just starting, or too busy, answers."""


class DevicePlugin:
    """One resource: a device that so many containers may share."""

    def __init__(self, device: NodeDevice, shares: int, folder: Path) -> None:
        """`folder` is the kubelet's, with its socket; the plugin's own will be there, too."""
        self.device = device
        self._shares = shares
        self._kubelet = folder / "kubelet.sock"
        self._known_to: object = None
        """The kubelet's socket that has heard of this plugin."""
        self._changes = asyncio.Condition()
        self._version = 0
        self._is_over = False
        methods = [
            rpc.Method("GetDevicePluginOptions", "Empty", "DevicePluginOptions", self._options),
            rpc.Method(
                "ListAndWatch", "Empty", "ListAndWatchResponse", self._watch, is_stream=True
            ),
            rpc.Method("Allocate", "AllocateRequest", "AllocateResponse", self._allocate),
        ]
        services = [rpc.service(DEVICE_PLUGIN, "DevicePlugin", methods)]
        self._listener = rpc.Listener(folder / f"hesper-{device.name}.sock", services)

    @property
    def resource(self) -> str:
        """What pods ask for: `hesper.dev/gpu`, or `hesper.dev/gpu-NAME` for a class."""
        if self.device.name == ALL:
            return KIND
        return f"{KIND}-{self.device.name.removeprefix(CLASS_PREFIX)}"

    async def attend(self) -> None:
        """Be there for the kubelet, and known to it.

        Raises `rpc.KubernetesError` if it does not want the resource.
        """
        if not self._kubelet.parent.is_dir():
            return  # no kubelet yet
        if await self._listener.ensure():
            self._known_to = None
        kubelet = rpc.identity(self._kubelet)
        if kubelet is None or kubelet == self._known_to:
            return
        try:
            await self._register()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _LATER:
                raise rpc.KubernetesError(
                    f"the kubelet does not take {self.resource}: {error.details()}"
                ) from None
            _log.warning("the kubelet does not answer", resource=self.resource)
            return
        self._known_to = kubelet
        _log.info("registered with the kubelet", resource=self.resource, shares=self._shares)

    async def _register(self) -> None:
        options = message(DEVICE_PLUGIN, "DevicePluginOptions")()
        request = message(DEVICE_PLUGIN, "RegisterRequest")(
            version=VERSION,
            endpoint=self._listener.path.name,
            resource_name=self.resource,
            options=options,
        )
        await rpc.call(self._kubelet, DEVICE_PLUGIN, "Registration/Register", request, "Empty")

    async def update(self, device: NodeDevice) -> None:
        """Tell the kubelet, if something about the device has changed."""
        if device != self.device:
            _log.info(
                "a server's state changed", socket=device.socket, is_healthy=device.is_healthy
            )
            async with self._changes:
                self.device = device
                self._version += 1
                self._changes.notify_all()

    async def drain(self) -> None:
        """Say that there is no device any more, let calls end, and go."""
        async with self._changes:
            self._is_over = True
            self._version += 1
            self._changes.notify_all()
        await self._listener.stop(DRAIN_SECONDS)

    async def _options(self, _: Any, __: Any) -> Any:
        return message(DEVICE_PLUGIN, "DevicePluginOptions")()

    async def _watch(self, _: Any, __: Any) -> AsyncIterator[Any]:
        told = -1
        while True:
            async with self._changes:
                while self._version == told:
                    await self._changes.wait()
                told, is_last = self._version, self._is_over
                health = HEALTHY if self.device.is_healthy and not is_last else UNHEALTHY
            response = message(DEVICE_PLUGIN, "ListAndWatchResponse")()
            for number in range(self._shares):
                response.devices.add(ID=self.device.share(number), health=health)
            yield response
            if is_last:
                return

    async def _allocate(self, request: Any, context: Any) -> Any:
        known = {self.device.share(number) for number in range(self._shares)}
        response = message(DEVICE_PLUGIN, "AllocateResponse")()
        for container in request.container_requests:
            unknown = [each for each in container.devices_ids if each not in known]
            if unknown or not container.devices_ids:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"{self.resource} has no device {', '.join(unknown) or 'of no name'}",
                )
            answer = response.container_responses.add()
            # However many of its uses a container has, it is one socket.
            answer.cdi_devices.add(name=self.device.cdi_name)
        if self._is_over or not self.device.is_healthy:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"no server answers on {self.device.socket}"
            )
        return response


async def serve(
    kubelet: Path, cdi_folders: Sequence[Path], shares: int, over: asyncio.Event
) -> None:
    """Be the device plugins of all devices of this node until `over`.

    kubelet: its folder, /var/lib/kubelet.  Raises `rpc.KubernetesError` and `cdi.CdiError`.
    """
    plugins: dict[str, DevicePlugin] = {}
    try:
        while not over.is_set():
            found = await asyncio.to_thread(node_devices, cdi_folders)
            for name, device in found.items():
                if name not in plugins:
                    plugins[name] = DevicePlugin(device, shares, kubelet / "device-plugins")
            for name, plugin in plugins.items():
                gone = NodeDevice(name, plugin.device.socket, is_healthy=False)
                await plugin.update(found.get(name, gone))
                await plugin.attend()
            await wait(over, LOOK_SECONDS)
    finally:
        await asyncio.gather(*(plugin.drain() for plugin in plugins.values()))


async def wait(over: asyncio.Event, seconds: float) -> None:
    """Wait for `over`, and for no more than some seconds."""
    try:
        await asyncio.wait_for(over.wait(), seconds)
    except TimeoutError:
        return
