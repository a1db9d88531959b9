"""A guest whose agent shares with viewers."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator

from guest_vm import GpuGuest, Guest
from vnc_client import EXTENDED_CLIPBOARD, RAW, Viewer

from hesper.display.access.places import Address, UnixPath, listen_on
from hesper.vhost_user_gpu import VhostUserGpu
from hesper.vm.agent import AgentServer
from hesper.vm.outputs import OutputOptions, Outputs


class Desk:
    """A guest whose agent runs, and where its screen is."""

    def __init__(self) -> None:
        self.vm: GpuGuest
        self.outputs: Outputs

    @contextlib.contextmanager
    def beside(self, guest: Guest, gpu: VhostUserGpu) -> Iterator[None]:
        """What listens for the agent."""
        options = OutputOptions(vnc=Address("127.0.0.1", 0), vnc_open=True, web=None)
        with (
            contextlib.closing(listen_on(UnixPath(guest.agent_socket), local=True)) as sockets,
            Outputs(gpu.display, options, gpu.runner.figures) as self.outputs,
        ):
            AgentServer(sockets.sockets[0], self.outputs).start()
            yield

    async def viewer(self) -> Viewer:
        place = self.outputs.places[0]
        viewer = await Viewer.connect(int(place.rpartition(":")[2]))
        viewer.set_encodings(RAW, EXTENDED_CLIPBOARD)
        while not viewer.clipboard:
            await viewer.message()
        viewer.clipboard.clear()
        return viewer

    @staticmethod
    async def copied(viewer: Viewer) -> str:
        """Wait until the guest offers text, and take it."""
        while not viewer.clipboard:
            await viewer.message()
        assert viewer.clipboard.pop(0) == (1 << 27 | 1, b"")
        viewer.clipboard_message(1 << 25 | 1)
        while not viewer.clipboard:
            await viewer.message()
        _, data = viewer.clipboard.pop(0)
        return zlib.decompress(data)[4:-1].decode()

    @staticmethod
    def copy(viewer: Viewer, text: bytes) -> None:
        """Have the viewer give text to the guest."""
        provided = zlib.compress(struct.pack(">I", len(text) + 1) + text + b"\0")
        viewer.clipboard_message(1 << 28 | 1, provided)
