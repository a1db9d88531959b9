"""The GPU behind vhost-user: the one file that knows both `gpu` and `vhost`.

A VMM that hands its guest over in another way needs another file like this one: a `Transport`, and
whoever attaches it to the device.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hesper.display.vmm.screens import VmmScreens
from hesper.gpu.runner import GpuOptions, GpuRunner
from hesper.gpu.transport import Done, GuestRegion, Known
from hesper.gpu.wire import QUEUE_COUNT, SHM_ID_HOST_VISIBLE
from hesper.isolation.listen import Access, bind
from hesper.vhost.server import DeviceServer

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.display.scanout import Display
    from hesper.event_loop import EventLoop
    from hesper.gpu.device import GpuDevice
    from hesper.vhost.device import Vmm
    from hesper.vhost.virtqueue import Chain


class VhostUserTransport:
    """A VM that is reached by vhost-user, for the GPU (a `gpu.transport.Transport`)."""

    def __init__(self, vmm: Vmm, loop: EventLoop) -> None:
        """`vmm` is the front-end at the other end.  loop: the device's."""
        self._vmm = vmm
        self._loop = loop
        self._screens: VmmScreens | None = None
        """On the VMM's display, which may be closed."""
        self._others: list[VmmScreens] = []
        """On displays that it had before."""

    def guest_memory(self) -> list[GuestRegion]:
        """See `Transport`."""
        return [GuestRegion(*region) for region in self._vmm.memory.regions]

    def queue_addresses(self) -> list[int]:
        """See `Transport`."""
        return self._vmm.queue_addresses()

    def map(self, offset: int, fd: int, size: int, done: Done) -> None:
        """See `Transport`."""
        self._vmm.map(SHM_ID_HOST_VISIBLE, fd, offset, size, done)

    def unmap(self, offset: int, size: int, done: Done) -> None:
        """See `Transport`."""
        self._vmm.unmap(SHM_ID_HOST_VISIBLE, offset, size, done)

    def config_changed(self) -> None:
        """See `Transport`.

        A VMM with a display tells the driver itself, of its windows, and QEMU's hears of nothing
        else (hw/display/vhost-user-gpu.c: `vhost_user_gpu_config_change`).
        """
        if self._screens is None:
            self._vmm.config_changed()

    def ask_sizes(self, known: Known) -> None:
        """See `Transport`."""
        if self._screens is None:
            known()
        else:
            self._screens.ask_sizes(lambda: self._loop.call(known))

    def show(self, sock: socket.socket, display: Display) -> None:
        """Show `display` at `sock`, the VMM's, and nowhere else of the VMM's.  Raises `OSError`."""
        if self._screens is not None:
            self._screens.close()
            self._others = [each for each in [*self._others, self._screens] if each.is_running]
        self._screens = VmmScreens(sock, display)

    def detach(self) -> None:
        """Show nothing any more: the VMM is gone, and soon perhaps the device's loop."""
        screens = [*self._others, *([] if self._screens is None else [self._screens])]
        for each in screens:
            each.close()
        for each in screens:
            each.join()


class VhostUserDevice:
    """The GPU, for vhost-user (a `vhost.device.Device`)."""

    queue_count = QUEUE_COUNT

    def __init__(self, gpu: GpuDevice, loop: EventLoop) -> None:
        """Hand on to `gpu` what a back-end asks of its device.  loop: the device's."""
        self._gpu = gpu
        self._loop = loop
        self._transport: VhostUserTransport | None = None
        self.features = gpu.features
        self.shared_memory: Mapping[int, int] = {SHM_ID_HOST_VISIBLE: gpu.window}
        self.read_config = gpu.read_config
        self.write_config = gpu.write_config
        self.negotiated = gpu.negotiated
        self.reset = gpu.reset
        self.starved = gpu.starved

    def connected(self, vmm: Vmm) -> None:
        """See `Device`."""
        self._transport = VhostUserTransport(vmm, self._loop)
        self._gpu.attach(self._transport)

    def disconnected(self) -> None:
        """See `Device`."""
        if self._transport is not None:
            self._transport.detach()
        self._gpu.detach()

    def show(self, sock: socket.socket) -> None:
        """See `Device`."""
        if self._transport is not None and len(self._gpu.display):
            self._transport.show(sock, self._gpu.display)
        else:
            sock.close()

    def handle(self, _queue: int, chain: Chain) -> None:
        """See `Device`."""
        if chain.cut:
            self._gpu.refuse_long(chain)
        else:
            self._gpu.request(chain)


class VhostUserGpu:
    """A GPU at a socket, for one VM at a time.

    Life: made, `start`ed once, `stop`ped, or entered and left; from any thread.
    """

    def __init__(
        self,
        path: Path,
        options: GpuOptions,
        ended: Callable[[], None],
        access: Access = Access(),  # noqa: B008  immutable
    ) -> None:
        """`ended` is called, on a thread, when the device cannot go on.

        access: who may connect to the socket at `path`.
        """
        self._path = path
        self._access = access
        self._runner = GpuRunner(options, ended)
        self._stack = contextlib.ExitStack()

    @property
    def about(self) -> dict[str, Any]:
        """What the workers say of the host's driver: driver, device, notice."""
        return self._runner.about

    @property
    def display(self) -> Display:
        """The scanouts."""
        return self._runner.display

    @property
    def runner(self) -> GpuRunner:
        """What runs the device, of whatever transport."""
        return self._runner

    def start(self) -> None:
        """Start; the socket takes connections from then on.

        Raises `errors.ListenError` and `errors.StartError`.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._runner.stop)
            listener = bind(str(self._path), self._access)
            stack.callback(listener.close)

            def listen(device: GpuDevice, loop: EventLoop) -> DeviceServer:
                return DeviceServer(listener.sock, VhostUserDevice(device, loop), loop)

            self._runner.start(listen)
            stack.callback(self._runner.stop)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop; every context ends.  May be called again."""
        self._stack.close()

    def __enter__(self) -> Self:
        """See `start`."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See `stop`."""
        self.stop()
