"""The guest's agent: spice-vdagent, whose clipboard Hesper shares with viewers.

It also has X, and GNOME, draw in the size that a viewer wants: those hear of it from the guest's
GPU, and follow nobody but an agent.

QEMU connects a serial port of the guest's to a socket of ours.  The agent is on it when the guest
runs one, perhaps only after somebody has logged in, and comes and goes as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from hesper.display.rfb.throttle import Throttle
from hesper.log import get_logger
from hesper.vm.accepting import accepted
from hesper.vm.agent_wire import (
    SELECTION_CLIPBOARD,
    TEXT,
    Capability,
    Kind,
    Message,
    MessageReader,
    capabilities,
    encode,
    monitors,
    parse_capabilities,
)

if TYPE_CHECKING:
    from hesper.display.clipboard import Clipboard
    from hesper.display.scanout import Display
    from hesper.vm.outputs import Outputs

TEXTS_A_SECOND = 2.0
TEXTS_AT_ONCE = 8
"""Texts that go to a guest, and that are fetched from it."""
RESIZE_SECONDS = 2.0
"""From a new size to the agent's being told of it."""
WIDTHS = 8
"""spice-vdagent rounds down to multiples of it."""
MAX_TYPES = 64
"""Kinds of a copied thing that are looked at; a desktop offers a dozen."""
_SELECTION = struct.Struct("<BBBB")

_log = get_logger(__name__)


class Agent:
    """One connection of QEMU's."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        shared: Clipboard,
        display: Display,
    ) -> None:
        """Share `shared` with the guest, and tell it what sizes `display` is wanted in."""
        self._messages = MessageReader(reader)
        self._writer = writer
        self._shared = shared
        self._display = display
        self._wake = asyncio.Event()
        self._can = 0
        """Capabilities of the agent; none before it has announced them."""
        self._asked = False
        """Whether the guest owes us the text that it has copied."""
        self._ours: str | None = None
        """What we have offered the guest."""
        # What is due: of each kind no more than one, however often it was asked for.
        self._announce = True
        self._wants_answer = True
        self._offer = False
        self._fetch = False
        self._give = False
        self._resize = False

    async def run(self) -> None:
        """Share until the guest's QEMU has gone.  Raises nothing of what that may cause."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                await self._receive()
        except* (EOFError, OSError):
            pass
        finally:
            self._shared.connect_guest(None)
            self._can = 0
            self._fit_sizes()
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def take_text(self, text: str) -> None:
        """See `Peer.take_text`."""
        self._ours = text
        self._offer = True
        self._wake.set()

    def resize(self) -> None:
        """Tell the guest what sizes its screens are wanted in."""
        self._resize = bool(self._can & 1 << Capability.MONITORS_CONFIG)
        self._wake.set()

    async def _receive(self) -> None:
        while True:
            message = await self._messages.read()
            # A message that is cut short says nothing.
            with contextlib.suppress(struct.error):
                self._handle(message)
            self._wake.set()

    def _handle(self, message: Message) -> None:
        match message.kind:
            case Kind.ANNOUNCE_CAPABILITIES:
                self._handle_capabilities(message.data)
            case Kind.GRAB:
                data = self._of_clipboard(message.data)
                if data is None:
                    return
                most = min(len(data) & ~3, MAX_TYPES * 4)
                types = {kind for (kind,) in struct.iter_unpack("<I", data[:most])}
                self._ours = None
                self._offer = False
                self._fetch = TEXT in types
                self._shared.copy_in_guest(None)
            case Kind.REQUEST:
                data = self._of_clipboard(message.data)
                self._give = self._give or (
                    data is not None and struct.unpack_from("<I", data) == (TEXT,)
                )
            case Kind.CLIPBOARD:
                self._handle_text(message.data)
            case Kind.RELEASE:
                if self._of_clipboard(message.data) is not None and self._ours is None:
                    self._fetch = self._asked = False
                    self._shared.copy_in_guest(None)

    def _handle_capabilities(self, data: bytes) -> None:
        wants_answer, can = parse_capabilities(data)
        began = not self._can & 1 << Capability.BY_DEMAND
        self._can = can
        self._fit_sizes()
        if wants_answer:
            self._announce, self._wants_answer = True, False
        if not can & 1 << Capability.BY_DEMAND:
            self._shared.connect_guest(None)
        elif began or wants_answer:
            _log.info("the guest's agent shares its clipboard")
            # It may have started anew, and know nothing.
            self._shared.connect_guest(self)

    def _fit_sizes(self) -> None:
        """Ask for what the agent does not round: for anything else it makes up a mode.

        That has no frequency, without which Linux 7.3 shows one more picture and no other.
        """
        for scanout in self._display:
            scanout.step = WIDTHS if self._can & 1 << Capability.MONITORS_CONFIG else 1

    def _handle_text(self, data: bytes) -> None:
        content = self._of_clipboard(data)
        if content is None or not self._asked:
            return
        (kind,) = struct.unpack_from("<I", content)
        self._asked = False
        if kind == TEXT:
            text = content[4:].rstrip(b"\0").decode("utf-8", "replace")
            self._shared.copy_in_guest(text)

    def _of_clipboard(self, data: bytes) -> bytes | None:
        """Return what follows the selection; None where it is another than the clipboard."""
        if not self._can & 1 << Capability.SELECTION:
            return data
        selection, *_ = _SELECTION.unpack_from(data)
        return data[_SELECTION.size :] if selection == SELECTION_CLIPBOARD else None

    async def _send(self) -> None:
        fetching = Throttle(TEXTS_A_SECOND, TEXTS_AT_ONCE)
        giving = Throttle(TEXTS_A_SECOND, TEXTS_AT_ONCE)
        while True:
            if self._announce:
                self._announce = False
                await self._write(
                    Kind.ANNOUNCE_CAPABILITIES, capabilities(wants_answer=self._wants_answer)
                )
                self._wants_answer = True
            if self._offer:
                self._offer = False
                await self._write_selected(Kind.GRAB, struct.pack("<I", TEXT))
            if self._resize:
                self._resize = False
                sizes = [scanout.wanted for scanout in self._display]
                await self._write(Kind.MONITORS_CONFIG, monitors(sizes))
            if self._give:
                await giving.wait()
                self._give = False
                await self._write_selected(Kind.CLIPBOARD, self._text())
            if self._fetch:
                await fetching.wait()
                self._fetch = False
                self._asked = True
                await self._write_selected(Kind.REQUEST, struct.pack("<I", TEXT))
            due = (self._announce, self._offer, self._resize, self._give, self._fetch)
            if not any(due):
                self._wake.clear()
                await self._wake.wait()

    def _text(self) -> bytes:
        """What answers a request: a type, and the text."""
        if self._ours is None:
            return struct.pack("<I", 0)
        ends_in_crlf = self._can & 1 << Capability.LINES_END_IN_CRLF
        text = self._ours.replace("\n", "\r\n") if ends_in_crlf else self._ours
        return struct.pack("<I", TEXT) + text.encode()

    async def _write_selected(self, kind: Kind, data: bytes) -> None:
        if self._can & 1 << Capability.SELECTION:
            data = _SELECTION.pack(SELECTION_CLIPBOARD, 0, 0, 0) + data
        await self._write(kind, data)

    async def _write(self, kind: Kind, data: bytes) -> None:
        self._writer.writelines(encode(kind, data))
        await self._writer.drain()


class AgentServer:
    """Shares the clipboard with one QEMU after the other."""

    def __init__(self, listener: socket.socket, outputs: Outputs) -> None:
        """`listener`: a Unix socket, which stays the caller's."""
        self._listener = listener
        self._outputs = outputs
        self._agent: Agent | None = None
        self._resizing: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen, on the outputs' event loop."""
        self._outputs.spawn(self._run)
        for scanout in self._outputs.display:
            scanout.also_tell(lambda _: self._outputs.call(self._resize_later))

    def _resize_later(self) -> None:
        """Have the agent see to a new size, if the guest has not until then.

        X hears of it first from the GPU, and then has a mode for it.
        """
        if self._resizing is not None:
            self._resizing.cancel()
        self._resizing = asyncio.get_running_loop().call_later(RESIZE_SECONDS, self._resize)

    def _resize(self) -> None:
        sizes = [
            (scanout.wanted, scanout.surface.size)
            for scanout in self._outputs.display
            if scanout.surface is not None
        ]
        if self._agent is not None and any(wanted != size for wanted, size in sizes):
            self._agent.resize()

    async def _run(self) -> None:
        while (shared := self._outputs.clipboard) is not None:
            sock = await accepted(self._listener)
            reader, writer = await asyncio.open_unix_connection(sock=sock)
            self._agent = Agent(reader, writer, shared, self._outputs.display)
            await self._agent.run()
            self._agent = None
            # Python 3.11 forgets a cancellation that comes while a task group is on its way out.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError
