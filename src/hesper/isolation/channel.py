"""What supervisor and worker say to each other over their socket pair.

Down, as messages of `portable.send_message`, each one JSON object with the key `do`:
  prepare  service, options, hurry,      first of all; hurry: say ready before warming up;
           log_level; with a pipe        for standard output and error
  serve    client; with its socket       once, when ready
           lease, slack; with a page     where all clients share memory, see `isolation.lease`
           files; with so many, last     where it is to be recorded, see `isolation.recordings`
           share; with a page            where they share the GPU's time, see `isolation.shares`
           limits                        of its class, where there are any
  lease    lease                         how much of it the client may take from now on
  figures  watch                         say what the client does, and time its queues for so long
  trace    seconds; with shared memory   note there what happens for so long
  noted                                  the log has why its client is ended
  stop                                   end in order
Up, as lines of JSON with the key `is`, because the supervisor must never block on a worker that
a guest may have taken over:
  ready    about, options, refusal       can serve; what the service has found out
  failed   kind, reason                  cannot serve; kind: of `errors.StartError`
  named    name                          what the client calls itself
  wants    lease                         the client wants to take so much memory
  gives    lease                         it takes no more than that from now on
  figures  those of `figures.Figures`    once for each order to say them
  works                                  it has begun to, and who shares the GPU's time may look
  log      level, logger, event, fields
  end      reason                        the client's fault, or ours; before the client is told,
                                         and before the process ends
  crashed  thread, command               a fatal signal has come, see `engine.report_crashes`;
           call, with                    where the sandbox refuses a system call: which, arguments
The end of the stream ends the other side: a worker whose supervisor is gone stops.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import Any

from hesper.portable import UnwantedError, receive_plain, recv_message, send_message

MAX_LINE = 64 << 10
"""Longest line a worker may send, in bytes."""
MAX_LINES = 1000
"""Most lines a worker may send at once."""
LINES_A_SECOND = 10
"""Lines that it may send for ever; its log limits itself to less."""


class ChannelError(Exception):
    """The other side sent what makes no sense."""


def send_down(sock: socket.socket, do: str, fds: Sequence[int] = (), **values: Any) -> None:
    """Tell a worker to do something.  Raises `OSError`."""
    send_message(sock, json.dumps({"do": do, **values}).encode(), fds)


def receive_down(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Wait for what the supervisor says; None when it is gone."""
    message = recv_message(sock)
    if message is None:
        return None
    return json.loads(message[0]), message[1]


def send_up(sock: socket.socket, is_: str, **values: Any) -> None:
    """Tell the supervisor something.  Raises `OSError`."""
    line = json.dumps({"is": is_, **values}, default=str).encode()
    if len(line) >= MAX_LINE:
        cut = {key: str(value)[: MAX_LINE // 20] for key, value in values.items()}
        line = json.dumps({"is": is_, **cut}).encode()
    sock.sendall(line + b"\n")


class Upstream:
    """The supervisor's end of what a worker says: never blocks, bounded."""

    def __init__(self, sock: socket.socket) -> None:
        """Read from `sock`, whatever its mode."""
        self._sock = sock
        self._rest = b""
        self._lines = 0.0
        self._counted = time.monotonic()

    def receive(self) -> list[dict[str, Any]] | None:
        """Return what has come, perhaps nothing; None when the worker is gone.

        Raises `ChannelError`.
        """
        try:
            data = receive_plain(self._sock, MAX_LINE)
        except BlockingIOError:
            return []
        except UnwantedError as error:
            raise ChannelError(str(error)) from None
        except ConnectionError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        now = time.monotonic()
        self._lines = max(0.0, self._lines - (now - self._counted) * LINES_A_SECOND) + len(lines)
        self._counted = now
        if len(self._rest) > MAX_LINE or self._lines > MAX_LINES:
            raise ChannelError("too much said")
        return [self._parse(line) for line in lines if line]

    @staticmethod
    def _parse(line: bytes) -> dict[str, Any]:
        try:
            # Of bytes the encoding would be guessed, which may load modules of Python's: the worker
            # would choose when that is, for want of descriptors in vain.
            text = line.decode()
            message = json.loads(text)
            if "\\ud" in text or "\\uD" in text:
                # Halves of a character, which nobody could write anywhere: metrics, answers.
                whole = json.dumps(message, ensure_ascii=False).encode(errors="replace")
                message = json.loads(whole.decode())
        except (ValueError, RecursionError) as error:
            raise ChannelError(f"no JSON: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("is"), str):
            raise ChannelError("no message")
        return message
