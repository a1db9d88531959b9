"""The status socket of a server: what its clients do, for its own user."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import msgspec

from hesper.display.access.places import Sockets, UnixPath, listen_on
from hesper.errors import HesperError
from hesper.log import get_logger
from hesper.observe import wire
from hesper.observe.places import status_socket
from hesper.portable import accept, peer, recv_message, send_message

if TYPE_CHECKING:
    from types import TracebackType

    from hesper.api.server import Handed, Server
    from hesper.display.scanout import Display, Scanout, Subscription

MOST_CONNECTIONS = 8
"""At a time; who comes then is told so."""
PATIENCE = 60.0
"""Seconds that who asks may be silent, or not read."""
BATCH_SECONDS = 0.25
"""Between two messages of a trace."""
MOST_REPORTED = 512
"""Clients of a report: what is longer is no message."""

_log = get_logger(__name__)
_questions = msgspec.json.Decoder(wire.Question)
_encode = msgspec.json.Encoder().encode


class StatusServer:
    """Answers who asks, on threads of its own.  A context manager.

    A server without one serves all the same: what cannot be is logged.
    """

    def __init__(
        self,
        server: Server,
        kind: str,
        sockets: Callable[[], list[str]],
        display: Display | None,
        before_retiring: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell of `server`, which runs.

        kind: the command that it is.  sockets: where its clients connect.  display: its screens.
        before_retiring: called before another server is told that it may take this one's place.
        """
        self._server = server
        self._kind = kind
        self._sockets = sockets
        self._display = display
        self._listening: Sockets | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._retiring = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="status", daemon=True)
        self._handlers: set[threading.Thread] = set()
        self._stopping = False
        self._before_retiring = before_retiring
        self._retired = False

    def __enter__(self) -> Self:
        """Listen."""
        try:
            path = status_socket(next(iter(self._sockets()), ""))
            self._listening = listen_on(UnixPath(path), local=True)
        except (OSError, ValueError, HesperError) as error:
            _log.warning("hesper top and hesper ps cannot see this server", reason=str(error))
            return self
        self._listening.sockets[0].setblocking(True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        self._stopping = True
        with contextlib.suppress(OSError):
            listening.sockets[0].shutdown(socket.SHUT_RDWR)  # wakes `accept` on Linux
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waking:
            waking.setblocking(False)
            waking.connect(str(listening.path))  # and elsewhere
        with self._lock:
            handlers = set(self._handlers)
            for sock in self._connections:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for handler in handlers:
            handler.join()
        path = listening.path
        listening.close()
        if path is not None:
            with contextlib.suppress(OSError):  # another server's is there
                path.parent.rmdir()

    def _accept(self) -> None:
        listening = self._listening
        while listening is not None and not self._stopping:
            try:
                sock = accept(listening.sockets[0])
            except OSError as error:
                if not self._stopping:
                    _log.warning("the status socket takes nobody", reason=str(error))
                    time.sleep(1.0)
                continue
            sock.settimeout(PATIENCE)
            who = peer(sock)
            if who.user != os.geteuid():
                _log.warning("another user asks for this server's status", asked_by=str(who))
                self._refuse(sock, "only the server's own user may ask")
                continue
            with self._lock:
                has_room = len(self._connections) < MOST_CONNECTIONS
                if has_room and not self._stopping:
                    self._connections.add(sock)
            if self._stopping:
                sock.close()
                return
            if not has_room:
                self._refuse(sock, f"{MOST_CONNECTIONS} ask already")
                continue
            handler = threading.Thread(target=self._handle, args=[sock], name="status", daemon=True)
            with self._lock:
                self._handlers.add(handler)
            handler.start()

    def _refuse(self, sock: socket.socket, why: str) -> None:
        sock.settimeout(1.0)
        with sock, contextlib.suppress(OSError):
            send_message(sock, _encode(wire.Refused(why)))

    def _handle(self, sock: socket.socket) -> None:
        """Answer one who asks, until he has no more questions."""
        try:
            while (message := recv_message(sock)) is not None:
                data, fds = message
                for fd in fds:
                    os.close(fd)
                if fds or len(data) > wire.MOST_ASKED:
                    raise ConnectionError(f"{len(data)} bytes and {len(fds)} descriptors")
                self._answer(sock, _questions.decode(data))
        except TimeoutError:
            pass
        except (ConnectionError, msgspec.DecodeError) as error:
            _log.of("status").info("a bad question over the status socket", reason=str(error))
            with contextlib.suppress(OSError):
                send_message(sock, _encode(wire.Refused(str(error)[:500])))
        except OSError:
            pass  # he has left
        except Exception:
            _log.exception("the status socket has failed")
        finally:
            with self._lock:
                self._connections.discard(sock)
                self._handlers.discard(threading.current_thread())
            sock.close()

    def _answer(self, sock: socket.socket, question: wire.Question) -> None:
        if isinstance(question, wire.AskReport):
            send_message(sock, _encode(self._report(question.watch)))
        elif isinstance(question, wire.AskEnd):
            names = {each.context: each.name for each in self._server.survey()}
            ended = self._server.end(question.context, "its user has said: hesper kill")
            name = names.get(question.context, "") if ended else None
            send_message(sock, _encode(wire.Ended(name)))
        elif isinstance(question, wire.AskTrace):
            self._trace(sock, question.seconds)
        else:
            self._give_way(sock, question)

    def _give_way(self, sock: socket.socket, question: wire.AskSockets | wire.AskRetire) -> None:
        """Let another server of this user take clients."""
        try:
            if isinstance(question, wire.AskSockets):
                self._hand(sock, self._server.handed())
            else:
                send_message(sock, _encode(wire.Retired(self._retire(question.kept))))
        except HesperError as error:
            send_message(sock, _encode(wire.Refused(str(error))))

    @staticmethod
    def _hand(sock: socket.socket, handed: list[Handed]) -> None:
        with contextlib.ExitStack() as stack:
            for each in handed:
                stack.enter_context(each.sock)
            if not handed:
                send_message(sock, _encode(wire.Refused("its guest cannot go to another server")))
                return
            known = [wire.Socket(each.path, each.kind, each.identity) for each in handed]
            answer = wire.Sockets(known, sys.argv[1:], os.getcwd())
            send_message(sock, _encode(answer), [each.sock.fileno() for each in handed])

    def _retire(self, kept: tuple[int, ...]) -> int:
        """Leave the other server what only one can have, and its clients."""
        with self._retiring:
            if not self._retired:
                self._before_retiring()
                listening = self._listening
                if listening is not None and listening.path is not None:
                    listening.move(listening.path.with_name(f"retired-{os.getpid()}"))
                self._retired = True
        return self._server.retire(kept)

    def _report(self, watch: float) -> wire.Report:
        clients = [wire.Client.of(each) for each in self._server.survey(watch)[:MOST_REPORTED]]
        about = self._server.about
        screens = [
            wire.Screen(each.index + 1, each.flushes, *_size(each)) for each in self._display or ()
        ]
        return wire.Report(
            kind=self._kind,
            sockets=self._sockets(),
            driver=about.driver,
            device=about.device,
            process=os.getpid(),
            time=time.monotonic(),
            clients=clients,
            screens=screens,
            gpus=[wire.Gpu(each.driver, each.device) for each in about.gpus if about.others],
            retired=self._retired,
        )

    def _trace(self, sock: socket.socket, seconds: float) -> None:
        """Send what happens, as it comes."""
        came: collections.deque[tuple[int, int]] = collections.deque()
        frames: collections.deque[tuple[int, int]] = collections.deque(maxlen=wire.MOST_FLUSHES)

        def on_context(number: int, fd: int) -> None:
            came.append((number, fd))

        began = time.monotonic_ns()
        with contextlib.ExitStack() as stack:
            if not self._server.trace(seconds, on_context):
                send_message(sock, _encode(wire.Refused("somebody traces this server already")))
                return
            stack.callback(_close_all, came)
            stack.callback(self._server.end_trace, on_context)
            send_message(sock, _encode(wire.Began(began)))
            for scanout in self._display or ():
                stack.callback(_follow(scanout, frames).close)
            end = time.monotonic() + seconds
            names: dict[int, tuple[str, int]] = {}
            while not self._stopping:
                left = end - time.monotonic()
                if _says_something(sock, max(0.0, min(BATCH_SECONDS, left))):
                    raise ConnectionError("who traces has left, or asks something else")
                self._send_news(sock, came, frames)
                for each in self._server.survey():
                    names[each.context] = (each.name, each.process)
                if left <= 0:
                    break
            clients = [(number, *about) for number, about in names.items()]
            send_message(sock, _encode(wire.Over(clients)))

    @staticmethod
    def _send_news(
        sock: socket.socket,
        came: collections.deque[tuple[int, int]],
        frames: collections.deque[tuple[int, int]],
    ) -> None:
        while came:
            number, fd = came.popleft()
            try:
                send_message(sock, _encode(wire.Traced(number)), [fd])
            finally:
                os.close(fd)
        shown = [frames.popleft() for _ in range(len(frames))]
        if shown:
            send_message(sock, _encode(wire.Flushed(shown)))


def _says_something(sock: socket.socket, seconds: float) -> bool:
    """Wait for so long; whether something, or the end, has come."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _size(scanout: Scanout) -> tuple[int, int]:
    surface = scanout.surface
    return (surface.size.width, surface.size.height) if surface is not None else (0, 0)


def _follow(scanout: Scanout, frames: collections.deque[tuple[int, int]]) -> Subscription:
    """Note when a screen shows a frame."""
    subscriptions: list[Subscription] = []

    def wake() -> None:
        now = time.monotonic_ns()
        if subscriptions and subscriptions[0].take().flushes:
            frames.append((scanout.index + 1, now))

    subscription = scanout.subscribe(wake)
    subscription.take()
    subscriptions.append(subscription)
    return subscription


def _close_all(came: collections.deque[tuple[int, int]]) -> None:
    while came:
        os.close(came.popleft()[1])
