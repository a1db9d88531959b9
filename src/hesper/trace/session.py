"""Has a recording read, or replayed, by a worker in its sandbox; the side that is trusted."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import msgspec

from hesper.errors import HesperError
from hesper.isolation.doorstep import Admission
from hesper.isolation.listen import bind
from hesper.isolation.supervisor import Supervisor
from hesper.portable import private_folder
from hesper.trace.frames import (
    AT,
    DONE,
    ERROR,
    FILE,
    MOST_LINE,
    OUTCOME,
    PIECE,
    WAITS,
    Frames,
    Request,
)
from hesper.trace.outcome import Outcome

if TYPE_CHECKING:
    from hesper.sandbox import Mode

SERVICE = "hesper.trace.service"
SILENCE = 15.0
"""Seconds after which it is said that nothing has come: more than between two things that a worker
says which waits."""

Notice = Callable[[str], None]
"""Is told, every now and then, what takes so long."""


class Said(msgspec.Struct):
    """What the worker says: one of these."""

    text: str | None = None
    file: tuple[str, bytes] | None = None
    outcome: Outcome | None = None


class WorkerDiedError(HesperError):
    """The worker is gone: the recording has killed it, by a driver's fault mostly."""


@contextlib.contextmanager
def _supervised(
    options: dict[str, Any], sandbox: Mode, memory: int, notice: Notice
) -> Iterator[str]:
    """A supervisor of one worker: the path where it listens.  Raises `StartError`."""
    with private_folder() as folder:
        path = str(folder / "trace")
        supervisor = Supervisor(
            [bind(path)],
            SERVICE,
            options,
            warm=1,
            max_clients=2,
            patience=120.0,
            admission=Admission(memory=memory),
            sandbox=sandbox,
        )
        failed: list[HesperError] = []
        ready = threading.Event()

        def run() -> None:
            try:
                supervisor.run(lambda _: ready.set())
            except HesperError as error:
                failed.append(error)
            finally:
                ready.set()

        thread = threading.Thread(target=run, name="supervisor")
        thread.start()
        try:
            for times in itertools.count(1):
                if ready.wait(SILENCE):
                    break
                notice(f"the driver is not open yet, after {times * SILENCE:.0f} s")
            if failed:
                raise failed[0]
            yield path
        finally:
            supervisor.stop()
            thread.join()


def ask(
    files: Sequence[IO[bytes]],
    request: Request,
    options: dict[str, Any],
    *,
    sandbox: Mode,
    memory: int,
    notice: Notice = lambda _: None,
) -> Iterator[Said]:
    """Have `files`, which are hostile, read: what the worker says of them, as it comes.

    options: for `service.Options`.  memory: bytes that it may use.
    notice: is told what is waited for, where that takes long.
    Raises `HesperError`: what is wrong with a file, with its offset; `WorkerDiedError`.
    """
    with (
        _supervised(options, sandbox, memory, notice) as path,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
    ):
        sock.connect(path)
        frames = Frames(sock)
        sender = threading.Thread(target=_send, args=[frames, files, request], daemon=True)
        sender.start()
        try:
            yield from _hear(frames, sock, notice)
        finally:
            # It may be sending to a worker that wants no more.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sender.join()


def _send(frames: Frames, files: Sequence[IO[bytes]], request: Request) -> None:
    with contextlib.suppress(OSError):
        frames.send(msgspec.msgpack.encode(request))
        for file in files:
            while piece := file.read(PIECE):
                frames.send(piece)
            frames.send(b"")


def _hear(frames: Frames, sock: socket.socket, notice: Notice) -> Iterator[Said]:
    at = ""
    while True:
        wait_for(sock, at, notice)
        try:
            frame = frames.receive()
        except (OSError, ValueError):
            frame = None
        if not frame:
            where = f" at command {at}" if at else ""
            raise WorkerDiedError(f"the process that read the recording has died{where}")
        kind, body = frame[0], frame[1:]
        if kind == DONE:
            return
        if kind == ERROR:
            raise HesperError(_printable(body))
        if kind == AT:
            number = int.from_bytes(body[:8], "little")
            at = f"{number}, {_printable(body[8:])[:100]}"
        elif kind == WAITS:
            notice(_printable(body)[:200])
        else:
            yield _said(kind, body)


def wait_for(sock: socket.socket, at: str, notice: Notice) -> None:
    """Return when the worker says something, or is gone; tell how long it has said nothing."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    for times in itertools.count(1):
        if poll.poll(SILENCE * 1000):
            return
        what = f"the driver has not returned from command {at}" if at else "nothing has come yet"
        notice(f"{what}, after {times * SILENCE:.0f} s")


def _said(kind: int, body: bytes) -> Said:
    if kind == FILE:
        name, _, data = body.partition(b"\0")
        return Said(file=(_printable(name)[:100], data))
    if kind == OUTCOME:
        try:
            return Said(outcome=_cleaned(msgspec.msgpack.decode(body, type=Outcome)))
        except msgspec.MsgspecError:
            raise WorkerDiedError("the process that read the recording spoke nonsense") from None
    return Said(text=_printable(body))


def _cleaned(outcome: Outcome) -> Outcome:
    """The same, with texts that a terminal may be shown."""

    def clean(text: str) -> str:
        return _printable(text.encode())

    return msgspec.structs.replace(
        outcome,
        lacks=[clean(each) for each in outcome.lacks],
        differences=[clean(each) for each in outcome.differences],
        translated={clean(what): count for what, count in outcome.translated.items()},
        misplaced={clean(what): count for what, count in outcome.misplaced.items()},
        fatal=clean(outcome.fatal),
    )


def _printable(data: bytes) -> str:
    """What a terminal may be shown of what a guest has had a hand in."""
    text = data[:MOST_LINE].decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text)
