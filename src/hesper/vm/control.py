"""What a machine that runs can be asked by its name (see `vm.registry`)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from hesper.display.input import Key
from hesper.display.keys import QCODE_OF
from hesper.display.snapshot import take
from hesper.log import get_logger

if TYPE_CHECKING:
    import socket

    from hesper.display.scanout import Display
    from hesper.vm.monitor import Monitor
    from hesper.vm.outputs import Outputs

MAX_QUESTION = 1 << 16
QUESTION_SECONDS = 10.0
MAX_KEYS = 1024
"""Steps in one question."""

Answer: TypeAlias = dict[str, Any]

_log = get_logger(__name__)


class Control:
    """Answers questions, on the outputs' event loop."""

    def __init__(
        self,
        listener: socket.socket,
        facts: Mapping[str, Any],
        display: Display,
        outputs: Outputs,
        monitor: Monitor,
        end: Callable[[], None],
    ) -> None:
        """`listener`: stays the caller's.  facts: of the machine.  end: ends it at once."""
        self._listener = listener
        self._facts = facts
        self._display = display
        self._outputs = outputs
        self._monitor = monitor
        self._end = end
        self._answers: dict[str, Callable[[dict[str, Any]], Awaitable[Answer]]] = {
            "show": self._show,
            "stop": self._stop,
            "screenshot": self._screenshot,
            "keys": self._keys,
        }

    def start(self) -> None:
        """Begin to answer."""
        self._outputs.spawn(self._run)

    async def _run(self) -> None:
        # The socket goes when its owner has closed it; a copy is the server's.
        server = await asyncio.start_unix_server(
            self._serve, sock=self._listener.dup(), limit=MAX_QUESTION
        )
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                question = await reader.readline()
                if not question:
                    return  # somebody has looked whether the machine is there
                answer = await self._answer(question)
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(QUESTION_SECONDS):
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            _log.info("a question has no answer", reason=str(error) or type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> Answer:
        try:
            question = json.loads(line)
            return await self._answers[question["ask"]](question)
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f"it does not understand the question: {error!r}"}

    async def _show(self, _question: dict[str, Any]) -> Answer:
        screens = [
            "{}x{}".format(*scanout.surface.size) if scanout.surface is not None else "dark"
            for scanout in self._display
        ]
        return {
            **self._facts,
            "pid": os.getpid(),
            "state": await self._monitor.state() or "ended",
            "screens": screens,
            "places": self._outputs.places,
        }

    async def _stop(self, question: dict[str, Any]) -> Answer:
        if question.get("now"):
            self._end()
        else:
            self._monitor.power_down()
        return {}

    async def _screenshot(self, _question: dict[str, Any]) -> Answer:
        pictures = []
        for scanout in self._display:
            data = io.BytesIO()
            take(scanout).save(data, "PNG")
            pictures.append(base64.b64encode(data.getvalue()).decode())
            await asyncio.sleep(0)
        return {"pictures": pictures}

    async def _keys(self, question: dict[str, Any]) -> Answer:
        steps = question["steps"]
        if len(steps) > MAX_KEYS or any(code not in QCODE_OF for step in steps for code in step):
            raise ValueError("too many keys, or unknown ones")
        for step in steps:
            down = [Key(code, True) for code in step]
            self._display[0].send_input([*down, *(Key(each.code, False) for each in down[::-1])])
        return {}
