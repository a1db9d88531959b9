"""What clients and workers that are hostile do to a supervisor, made of a fuzzer's choices.

All happens on one thread: the next step is taken when the supervisor has nothing to do.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.source import Source
from hesper.isolation.supervisor import Supervisor
from hesper.isolation.turns import Turns
from hesper.portable import Peer
from hesper.vtest.wire import Command

MAX_STEPS = 96
MOST_TIMERS = 2000
"""Timers that may run out while a supervisor stops."""
PLACES, OF_PROCESS, OF_USER = 4, 2, 3
MEMORY = 1 << 30
"""Bytes that all clients together may have."""
KINDS = ("ready", "failed", "named", "log", "end", "crashed", "wants", "gives", "nonsense")
KEYS = (
    "about", "options", "refusal", "kind", "reason", "name", "level", "logger", "event", "fields",
    "thread", "command", "call", "with", "lease",
)  # fmt: skip


class LimitError(Exception):
    """A supervisor has let in more than it should."""


class StepTurns(Turns):
    """Takes a step of the program instead of waiting."""

    step: Callable[[StepTurns], None]
    now = 1.0
    """Seconds."""

    def clock(self) -> float:
        """What `time.monotonic` is to say."""
        return self.now

    def turn(self) -> None:
        """See `Turns.turn`."""
        is_due = self._timers and self._timers[0][0] <= self.now
        if is_due or self._selector.select(0):
            super().turn()
        else:
            self.step(self)

    def pass_time(self) -> bool:
        """Let the next timer run out; whether there is one."""
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if self._timers:
            self.now = self._timers[0][0]
        return bool(self._timers)


class Worker:
    """A worker's process that is none.  A `launch.Process`."""

    def __init__(self, control: socket.socket, number: int) -> None:
        """Take over `control`."""
        self.pid = 10_000 + number
        self.returncode: int | None = None
        self.problem = ""
        self.control = control
        control.setblocking(False)
        self.watch, self._alive = os.pipe()
        self.orders = bytearray()
        self.fds: list[int] = []
        """What has come with orders: first of all a pipe for what a driver writes."""

    def listen(self) -> None:
        """Take what the supervisor orders."""
        with contextlib.suppress(OSError):
            while True:
                data, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 8)
                self.fds += fds
                self.orders += data
                if not data:
                    return

    def end(self, status: int) -> None:
        """End with a status."""
        if self.returncode is None:
            self.returncode = status
            os.close(self._alive)
            self.control.close()
            while self.fds:
                os.close(self.fds.pop())

    def poll(self) -> bool:
        """See `launch.Process`."""
        return self.returncode is not None

    def kill(self) -> None:
        """See `launch.Process`."""
        self.end(-9)

    def wait(self) -> None:
        """See `launch.Process`."""
        os.close(self.watch)


class Launcher:
    """Makes workers.  A `launch.Launcher`."""

    def __init__(self, source: Source) -> None:
        """Now and then none can be made, as `source` says."""
        self.workers: list[Worker] = []
        self._source = source

    def launch(self, control: socket.socket, *, background: bool) -> Worker:
        """See `launch.Launcher`."""
        del background
        if self._source.number(1) >= 250:
            raise OSError("no processes are left")
        worker = Worker(control.dup(), len(self.workers))
        self.workers.append(worker)
        return worker

    def preload(self, files: Sequence[str]) -> None:
        """See `launch.Launcher`."""

    def fileno(self) -> None:
        """See `launch.Launcher`."""

    def hear(self) -> bool:
        """See `launch.Launcher`."""
        return True

    def close(self) -> None:
        """See `launch.Launcher`."""


class DoorProgram:
    """Takes a step whenever `turns` has nothing to do, and stops the supervisor in the end."""

    def __init__(self, source: Source, launcher: Launcher, path: str) -> None:
        """`path` is where clients connect."""
        self.source = source
        self.launcher = launcher
        self.path = path
        self.clients: list[socket.socket] = []
        self.supervisor: Supervisor | None = None
        self._left = MAX_STEPS
        self._timers = MOST_TIMERS
        self._steps: tuple[Callable[[StepTurns], None], ...] = (
            *(self._connect,) * 3, *(self._speak,) * 3, self._leave, *(self._ready,) * 3,
            *(self._say,) * 3, self._say_bytes, self._write, self._die, self._pass, self._pass,
        )  # fmt: skip

    def peer(self, _: socket.socket) -> Peer:
        """Who the next client is."""
        choice = self.source.number(1)
        return Peer(choice % 3, choice // 3 % 4)

    def memory(self, _: int) -> int:
        """How much memory a worker is found to have."""
        return self.source.number(1) << 24

    def step(self, turns: StepTurns) -> None:
        """Take the next step."""
        self._check()
        if self._left and not self.source.is_empty:
            self._left -= 1
            self.source.choice(self._steps)(turns)
            return
        if self._left >= 0:
            self._left = -1
            if self.supervisor is not None:
                self.supervisor.stop()
        elif not turns.pass_time():
            raise RuntimeError("a supervisor that is told to stop waits for ever")
        else:
            self._timers -= 1
            if not self._timers:
                raise RuntimeError("a supervisor that is told to stop does not")

    def close(self) -> None:
        """End all that is left."""
        for client in self.clients:
            client.close()
        for worker in self.launcher.workers:
            worker.end(0)

    def _check(self) -> None:
        """Raise `LimitError` where the supervisor breaks its own rules."""
        serving = 0
        for worker in self.launcher.workers:
            if worker.poll():
                continue
            worker.listen()
            times = worker.orders.count(b'"do": "serve"')
            if times > 1:
                raise LimitError("a worker is to serve two clients")
            serving += times
        if serving > PLACES:
            raise LimitError(f"{serving} clients are served, in {PLACES} places")

    # Clients.

    def _connect(self, _: StepTurns) -> None:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        try:
            client.connect(self.path)
        except OSError:
            client.close()
            return
        self.clients.append(client)
        if self.source.number(1) % 2:
            self._send(client, struct.pack("<II", 5, Command.CREATE_RENDERER) + b"fuzz\0")

    def _speak(self, _: StepTurns) -> None:
        if not self.clients:
            return
        client = self.source.choice(self.clients)
        name = self.source.take(self.source.number(1))
        kind = self.source.number(1)
        length = len(name) if kind < 192 else self.source.number(4)
        number = Command.CREATE_RENDERER if kind % 16 < 14 else self.source.number(4)
        message = struct.pack("<II", length, number) + name
        self._send(client, message if kind % 8 else name)

    @staticmethod
    def _send(client: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):
            client.send(data)

    def _leave(self, _: StepTurns) -> None:
        if self.clients:
            self.clients.pop(self.source.below(len(self.clients))).close()

    # Workers.

    def _worker(self) -> Worker | None:
        alive = [worker for worker in self.launcher.workers if not worker.poll()]
        return self.source.choice(alive) if alive else None

    def _tell(self, data: bytes) -> None:
        worker = self._worker()
        if worker is not None:
            with contextlib.suppress(OSError):
                worker.control.send(data)

    def _ready(self, _: StepTurns) -> None:
        """Get ready as a worker does."""
        message = {"is": "ready", "about": {}, "options": {}, "refusal": "00" * 160}
        self._tell(json.dumps(message).encode() + b"\n")

    def _value(self, depth: int = 0) -> Any:
        choice = self.source.number(1) % 16
        if choice >= 13 and depth < 4:
            values = [self._value(depth + 1) for _ in range(self.source.number(1) % 4)]
            return values if choice < 15 else {str(each)[:20]: each for each in values}
        simple = (
            "", "error", "info", "critical", "StartError", "fuzz", 0, -1, 1 << 70, 1.5,
            float("inf"), float("nan"), None, True,
            self.source.take(self.source.number(1) % 64).decode("latin-1"), "\x1b[2J\n", "x" * 3000,
        )  # fmt: skip
        return simple[choice % len(simple)]

    def _say(self, _: StepTurns) -> None:
        """A message that is mostly of the right shape."""
        message: dict[str, Any] = {"is": self.source.choice(KINDS)}
        if message["is"] == "log":
            message |= {"level": "error", "logger": "fuzz", "event": "fuzz", "fields": {}}
        if message["is"] in {"wants", "gives"}:
            message["lease"] = self.source.choice((0, -1, 1 << 20, 1 << 29, 1 << 30, 1 << 63))
        for _each in range(self.source.number(1) % 6):
            message[self.source.choice(KEYS)] = self._value()
        data = json.dumps(message).encode()
        count = 1 if self.source.number(1) < 250 else 400
        self._tell((data + b"\n") * count)

    def _say_bytes(self, _: StepTurns) -> None:
        """Bytes as they stand, or very many."""
        data = self.source.take(self.source.number(1))
        self._tell(data if self.source.number(1) < 240 else data * 256 or b"[" * 60_000)

    def _write(self, _: StepTurns) -> None:
        """Write what a driver writes."""
        worker = self._worker()
        if worker is not None and worker.fds:
            data = self.source.take(self.source.number(1)) + b"\n" * (self.source.number(1) % 2)
            os.set_blocking(worker.fds[0], False)
            with contextlib.suppress(OSError):
                os.write(worker.fds[0], data * (1 + self.source.number(1) % 8))

    def _die(self, _: StepTurns) -> None:
        worker = self._worker()
        if worker is not None:
            worker.end(self.source.choice((0, 1, 70, -11, -31, -64, 255)))

    # Time.

    def _pass(self, turns: StepTurns) -> None:
        turns.pass_time()
