"""QEMU's monitor (QMP): input to the guest, ending it in order, and what makes it stand still."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from qemu.qmp import ConnectError, EventListener, QMPClient, QMPError, Runstate

from hesper.display.input import Key
from hesper.display.keys import QCODE_OF
from hesper.log import get_logger
from hesper.vm.input_events import to_qemu
from hesper.vm.pacing import Pacing

if TYPE_CHECKING:
    from hesper.display.input import InputEvent
    from hesper.display.scanout import Display
    from hesper.vm.outputs import Outputs

RETRY_SECONDS = 0.05
CONNECT_SECONDS = 30.0
GOODBYE_SECONDS = 1.0
RESUME_SECONDS = 5.0
"""Between two tries to go on with a machine whose disk could not be written."""
EMULATED_SLOWNESS = 3
"""How much more time a key has where QEMU emulates the processors: such a guest may stand still."""
MAX_WAITING = 64
"""Orders that wait for QEMU, besides input."""
ASK_SECONDS = 5.0
"""For an answer to a question for which a connection is made."""
WRONG_STATES = {
    "internal-error": "the accelerator cannot run this guest: choose another with --accel",
    "io-error": "a disk of the machine cannot be written: make room where its image lies",
}
"""By QEMU's `RunState`, in which a machine stands still although nobody wanted it to."""

_log = get_logger(__name__)


def what_is_wrong(path: str) -> str:
    """Ask at QEMU's QMP socket why its machine stands still, and what to do.

    Empty where nothing is wrong with it, or QEMU does not say.  Not on a thread with an event loop.
    """

    async def ask() -> object:
        client = QMPClient("hesper")
        async with asyncio.timeout(ASK_SECONDS):
            await client.connect(path)
            try:
                return await client.execute("query-status")
            finally:
                await client.disconnect()

    try:
        status: Any = asyncio.run(ask())
    except (QMPError, OSError, EOFError, TimeoutError):
        return ""
    return WRONG_STATES.get(status["status"], "")


class _Gone(Exception):  # noqa: N818  nothing is wrong
    """QEMU has closed its monitor."""


class Monitor:
    """A connection to QEMU's monitor, on the outputs' event loop.

    Orders may come from any thread; they are sent once QEMU is there.
    """

    def __init__(
        self,
        path: str,
        display: Display,
        outputs: Outputs,
        broken: Callable[[], None] = lambda: None,
        connected: Callable[[], None] = lambda: None,
        restarted: Callable[[], None] = lambda: None,
    ) -> None:
        """`path`: QEMU's QMP socket, which it is about to make.

        connected: called, on the outputs' thread, once QEMU has taken its arguments.
        broken: called there when the accelerator cannot run the guest.
        restarted: called there when the machine starts over, and nothing is shown any more.
        """
        self._path = path
        self._broken = broken
        self._connected = connected
        self._restarted = restarted
        self._display = display
        self._outputs = outputs
        self._client = QMPClient("hesper")
        self._orders: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(MAX_WAITING)
        self._pacing = Pacing()
        self._input_waits = asyncio.Event()

    def start(self) -> None:
        """Connect as soon as QEMU is there, and pass on what viewers do."""
        self._outputs.spawn(self._run)
        self._display.connect_input(self.send_input)

    def send_input(self, index: int, events: Sequence[InputEvent]) -> None:
        """Pass on what a viewer of scanout `index` did."""
        known = [event for event in events if not isinstance(event, Key) or event.code in QCODE_OF]
        self._outputs.call(lambda: self._put_input(index, known))

    def power_down(self) -> None:
        """Press the power button."""
        self.order("system_powerdown")

    def quit(self) -> None:
        """End QEMU at once."""
        self.order("quit")

    def order(self, command: str, **arguments: Any) -> None:
        """Send a command; what it answers is not waited for."""
        self._outputs.call(lambda: self._put(command, arguments))

    def _put(self, command: str, arguments: dict[str, Any]) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._orders.put_nowait((command, arguments))

    def _put_input(self, index: int, events: Sequence[InputEvent]) -> None:
        if lost := self._pacing.add(index, events):
            _log.of("viewers").warning(
                "input is lost: more of it comes than the guest takes", events=lost
            )
        self._input_waits.set()

    async def _pass_input_on(self) -> None:
        slowness = EMULATED_SLOWNESS if await self._is_emulated() else 1
        while True:
            await self._input_waits.wait()
            while self._pacing:
                index, events, seconds = self._pacing.take()
                await self._send_input(index, events)
                await asyncio.sleep(seconds * slowness)
            self._input_waits.clear()

    async def _send_input(self, index: int, events: Sequence[InputEvent]) -> None:
        arguments = {"events": to_qemu(self._display, index, events)}
        await self._execute("input-send-event", arguments)

    async def _is_emulated(self) -> bool:
        """Whether the guest's processors are QEMU's own work."""
        with contextlib.suppress(QMPError, OSError):  # QEMU knows the question since 10.2
            there: Any = await self._client.execute("query-accelerators")
            return bool(there["enabled"] == "tcg")
        kvm: Any = await self._execute("query-kvm", {})
        return kvm is not None and not kvm["enabled"]

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connect()
        except TimeoutError:
            _log.error("no QEMU monitor: the guest gets no input", path=self._path)
            return
        self._connected()
        await self._converse()

    async def _converse(self) -> None:
        """Do what there is to do for a QEMU that is connected, until it has gone."""
        try:
            with self._client.listener(("STOP", "RESET")) as events:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(events))
                    tasks.create_task(self._pass_input_on())
                    tasks.create_task(self._pass_orders_on())
                    while self._client.runstate is Runstate.RUNNING:
                        await self._client.runstate_changed()
                    raise _Gone
        except* _Gone:
            pass
        finally:
            # To its end, or the library leaves an error behind that asyncio complains of.
            ending = asyncio.create_task(self._disconnect())
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                await ending
                raise

    async def _disconnect(self) -> None:
        with contextlib.suppress(QMPError, OSError, EOFError):
            # A machine that goes on without its viewers has nobody who could let go.
            async with asyncio.timeout(GOODBYE_SECONDS):
                for index, event in self._pacing.let_go():
                    if self._client.runstate is Runstate.RUNNING:
                        await self._send_input(index, [event])
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()

    async def _pass_orders_on(self) -> None:
        while True:
            command, arguments = await self._orders.get()
            await self._execute(command, arguments)

    async def _watch(self, events: EventListener) -> None:
        await self._check_state()
        async for event in events:
            if event["event"] == "RESET":
                self._darken()
                self._restarted()
            else:
                await self._check_state()

    def _darken(self) -> None:
        """Show nothing: the guest starts over, and the device hears of it when a driver does."""
        for scanout in self._display:
            scanout.show(None)
            scanout.set_cursor(None)

    async def _check_state(self) -> None:
        """See to a machine that stands still although nobody wanted it to."""
        state = await self.state()
        if state == "internal-error":
            _log.error(
                "the accelerator cannot run this guest",
                remedy="choose another with --accel, tcg works everywhere",
            )
            self._broken()
        elif state == "io-error":
            _log.error(
                "the machine stands still: a disk of it cannot be written",
                remedy="make room where its image lies; it goes on by itself",
            )
            await asyncio.sleep(RESUME_SECONDS)
            while await self.state() == "io-error":
                # QEMU tries again what has failed; if that fails again, it is soon back here.
                await self._execute("cont", {})
                await asyncio.sleep(RESUME_SECONDS)
            _log.info("the machine no longer waits for its disk")

    async def state(self) -> str:
        """QEMU's `RunState`; empty when QEMU is not there.  On the outputs' event loop."""
        status: Any = await self._execute("query-status", {})
        return "" if status is None else str(status["status"])

    async def _connect(self) -> None:
        while True:
            try:
                await self._client.connect(self._path)
            except ConnectError:
                # QEMU has not got there yet.
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _execute(self, command: str, arguments: dict[str, Any]) -> object:
        """Return what QEMU answers; None when it refuses or has gone."""
        try:
            return await self._client.execute(command, arguments)
        except (QMPError, OSError) as error:
            _log.warning("QEMU refuses an order", command=command, reason=str(error))
            return None
