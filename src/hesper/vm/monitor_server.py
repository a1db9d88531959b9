"""QEMU's monitor, for a QEMU that somebody else starts: it connects, as it does to the GPU."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from qemu.qmp import ConnectError, QMPClient

from hesper.log import get_logger
from hesper.vm.accepting import accepted
from hesper.vm.monitor import Monitor
from hesper.vm.pacing import Pacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hesper.display.input import InputEvent
    from hesper.display.scanout import Display
    from hesper.vm.outputs import Outputs

GREETING_SECONDS = 10.0
"""For whoever connects, to show that it is QEMU."""

_log = get_logger(__name__)


class MonitorServer(Monitor):
    """Passes on what viewers do to one QEMU after the other, and to nobody without one."""

    def __init__(self, listener: socket.socket, display: Display, outputs: Outputs) -> None:
        """`listener`: a Unix socket, which stays the caller's."""
        super().__init__(str(listener.getsockname()), display, outputs)
        self._listener = listener
        self._is_there = False

    def _put_input(self, index: int, events: Sequence[InputEvent]) -> None:
        if self._is_there:
            super()._put_input(index, events)

    async def _run(self) -> None:
        while True:
            sock = await accepted(self._listener)
            # What one viewer did before is nothing to this machine.
            self._pacing = Pacing()
            self._client = QMPClient("hesper")
            try:
                async with asyncio.timeout(GREETING_SECONDS):
                    await self._client.connect(sock)
            except (ConnectError, TimeoutError) as error:
                sock.close()
                _log.warning("whoever has connected to the monitor is no QEMU", reason=str(error))
                continue
            _log.info("QEMU's monitor is connected: viewers have keyboard and pointer")
            self._is_there = True
            try:
                await self._converse()
            except Exception:
                # Of one QEMU, or of what is none; the next finds us here.
                _log.exception("QEMU's monitor says what it should not")
            finally:
                self._is_there = False
            # Python 3.11 forgets a cancellation that comes while a task group is on its way out.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError
            _log.info("QEMU's monitor has gone")
