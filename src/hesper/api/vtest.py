"""A server for clients on a Unix socket: Mesa's Venus with VN_DEBUG=vtest."""

from __future__ import annotations

import contextlib
import os
import socket as socket_module
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import msgspec

from hesper.api.checks import check_access, check_kind, check_number
from hesper.api.client import client_environment, find_venus
from hesper.api.options import HostOptions, for_workers
from hesper.api.server import WATCH_PATIENCE, Run, Server
from hesper.classes import Classes, ClientClass
from hesper.errors import OptionError, StartError, StateError
from hesper.isolation.doorstep import Admission
from hesper.isolation.listen import Access, Listener, adopt, bind
from hesper.isolation.peers import Quota
from hesper.isolation.shader_caches import ShaderCaches
from hesper.isolation.supervisor import Supervisor
from hesper.portable import group_id, physical_memory
from hesper.sandbox.files import cache_folder
from hesper.vtest.introduction import introduced
from hesper.vtest.refusal import VtestRefuser
from hesper.vtest.wire import DEFAULT_SOCKET

if TYPE_CHECKING:
    from hesper.figures import ContextFigures
    from hesper.isolation.listen import Handed
    from hesper.isolation.tracing import OnContext

SERVICE = "hesper.vtest.service"

ANSWER_SECONDS = 30.0
"""Seconds in which a client gets an answer, if it has more time than that to introduce itself."""
CLIENT_BYTES = 64 << 20
"""What a client's worker is taken to need when the number of clients is chosen."""
FEWEST_CLIENTS, MOST_CLIENTS = 64, 1024
"""What is chosen is at least the one and at most the other."""
FEWEST_OF_ONE = 8
"""Clients that one process and one user may have, unless there are fewer places."""
MOST_PLACES = 1 << 16
"""The largest number of clients that can be asked for."""


def default_clients() -> int:
    """How many clients this machine's memory has room for."""
    return min(max(FEWEST_CLIENTS, physical_memory() // CLIENT_BYTES), MOST_CLIENTS)


@dataclass(frozen=True, kw_only=True)
class VtestOptions(HostOptions):
    """How clients are served.  Raises `errors.OptionError` for what cannot be."""

    more_drivers: tuple[str, ...] = ()
    """Further drivers, or devices of drivers, as `driver` has them: each is a GPU, which a client
    sees alone.  It comes to the one that has the fewest, and to the same again.  Wants `driver`."""
    mode: int = 0o600
    """Permissions of the socket's file: who may use the GPU.  If its folder is missing it is made,
    with permissions to match."""
    group: str | int | None = None
    """Group of the socket's file, and of that folder: its name or number; None: the system's
    choice."""
    max_clients: int | None = None
    """Clients served at a time; more wait a few seconds and are refused.  None: as many as memory
    has room for."""
    warm: int = 2
    """Workers kept ready for the next clients, 1 or more; each is a process that has the driver
    open."""
    max_clients_per_process: int | None = None
    """The same of one process.  None: half of them, eight at least."""
    max_clients_per_user: int | None = None
    """The same of one user.  None: three quarters of them, eight at least, where `mode` lets others
    than the socket's owner connect, and elsewhere all."""
    silence_timeout: float | None = 3.0
    """Seconds that a client may be silent until it has introduced itself; None: for ever."""
    handshake_timeout: float | None = 30.0
    """Seconds a client has to introduce itself, be it silent or not; None: for ever."""
    classes: tuple[ClientClass, ...] = ()
    """Classes of clients: what one may use, in place of `limits`, its weight where clients share
    the GPU's time, and who is in it.  Clients in none have `limits` and weight 1, unless there is a
    class `default`."""
    shares: bool = True
    """Whether clients share the GPU's time by their weights, or as the driver has it."""
    sample: int = 0
    """Look every so many microseconds at what each client's streams are doing, and log it when the
    client leaves; 0: not at all."""

    def __post_init__(self) -> None:
        """Check them."""
        super().__post_init__()
        check_access(self.mode, self.group)
        self._check_drivers()
        if self.max_clients is not None:
            default = "left out, it goes by the memory there is"
            check_number("max_clients", self.max_clients, 1, MOST_PLACES, default)
        for name in ("max_clients_per_process", "max_clients_per_user"):
            if (most := getattr(self, name)) is not None:
                check_number(name, most, 1, MOST_PLACES, "left out, it goes by max_clients")
        check_number("warm", self.warm, 1, 1 << 10)
        for name in ("silence_timeout", "handshake_timeout"):
            if (seconds := getattr(self, name)) is not None:
                check_number(name, seconds, 0.001, 86400.0, "None: for ever")
        for each in self.classes:
            check_kind("classes", each, ClientClass, "must be hesper.classes.ClientClass(...)")
            if each.programs:
                must = "may name users and control groups: a client's own name proves nothing"
                raise OptionError(f"class {each.name}: program", each.programs[0], must)
        Classes(self.classes, self.limits)  # says what is wrong
        check_number("sample", self.sample, 0, 1_000_000, "left out, nobody looks")

    def _check_drivers(self) -> None:
        for each in self.more_drivers:
            check_kind("more_drivers", each, str, "must be names of drivers, see `driver`")
        if self.more_drivers and self.driver is None:
            raise OptionError("more_drivers", self.more_drivers, "say the first one as `driver`")
        every = [self.driver, *self.more_drivers]
        if len(set(every)) < len(every):
            raise OptionError("more_drivers", self.more_drivers, "one of them stands there twice")

    @property
    def group_id(self) -> int | None:
        """The group's number."""
        return group_id(self.group) if isinstance(self.group, str) else self.group

    @property
    def places(self) -> int:
        """How many clients are served at a time."""
        return self.max_clients or default_clients()

    @property
    def admission(self) -> Admission:
        """What is asked of clients before they have a worker."""
        places = self.places
        is_shared = self.mode & 0o077
        quota = Quota(
            self.max_clients_per_process or max(FEWEST_OF_ONE, places // 2),
            self.max_clients_per_user
            or (max(FEWEST_OF_ONE, places * 3 // 4) if is_shared else places),
        )
        bounds = [each for each in (self.silence_timeout, self.handshake_timeout) if each]
        silence = min(bounds, default=None)
        classes = Classes(self.classes, self.limits)
        memory = self.limits.total_memory
        return Admission(introduced, silence, quota, memory, None, classes, self.shares)


class _VtestRun(Run):
    """A supervisor, from its first worker to its last."""

    def __init__(self, listeners: Sequence[Listener], options: VtestOptions) -> None:
        """Take over `listeners`."""
        super().__init__()
        self.listeners = listeners
        # See `vtest.service.Options`.
        service = for_workers(options)
        widest = Classes(options.classes, options.limits).widest
        service |= {
            "limits": msgspec.to_builtins(widest),
            "handshake_timeout": options.handshake_timeout,
            "silence_timeout": options.silence_timeout,
            "sample": options.sample,
        }
        self._refuser = VtestRefuser()
        caches = ShaderCaches(options.shader_cache, listeners[0].path, cache_folder(os.environ))
        self.supervisor = Supervisor(
            listeners,
            SERVICE,
            [{**service, "driver": each} for each in (options.driver, *options.more_drivers)],
            warm=options.warm,
            max_clients=options.places,
            patience=min(options.handshake_timeout or ANSWER_SECONDS, ANSWER_SECONDS),
            admission=options.admission._replace(refuse=self._refuser, caches=caches),
            sandbox=options.sandbox,
        )
        self.supervisor.begin()

    def serve(self) -> None:
        try:
            self.supervisor.run(self.ready)
        finally:
            self._refuser.close()

    def stop(self, *, at_once: bool) -> None:
        self.supervisor.stop(at_once="the server stops at once" if at_once else "")

    def survey(self, watch: float) -> list[ContextFigures]:
        return self.supervisor.survey(watch, WATCH_PATIENCE)

    def end(self, context: int, why: str) -> bool:
        return self.supervisor.end(context, why, WATCH_PATIENCE)

    def trace(self, seconds: float, on_context: OnContext) -> bool:
        return self.supervisor.trace(seconds, on_context, WATCH_PATIENCE)

    def end_trace(self, on_context: OnContext) -> None:
        self.supervisor.end_trace(on_context)


class VtestServer(Server):
    """Serves Venus clients on a Unix socket, as virgl_test_server does: one process a client.

        with hesper.VtestServer("/run/user/1000/hesper/vtest") as server:
            environ = os.environ | server.client_environment()
            subprocess.run(["vulkaninfo", "--summary"], env=environ, check=True)

    Options are a `VtestServer.Options` (`hesper.api.vtest.VtestOptions`).
    """

    Options: TypeAlias = VtestOptions
    DEFAULT_SOCKET: ClassVar[str] = DEFAULT_SOCKET
    """Where Mesa's clients look if nobody tells them."""

    def __init__(
        self,
        socket: str | os.PathLike[str] = DEFAULT_SOCKET,
        options: VtestOptions | None = None,
        *,
        more: Sequence[str | os.PathLike[str]] = (),
        socket_classes: Mapping[str, str] = MappingProxyType({}),
        sockets: Sequence[socket_module.socket] = (),
        handed: Sequence[Handed] = (),
        on_end: Callable[[], None] | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        """Nothing is listened on before `start`.

        socket: path of the socket; one that nobody listens on any more is replaced.
        options: how clients are served; None: `VtestOptions()`.
        more: paths of further sockets.
        socket_classes: names of the classes (`options.classes`) that clients are in by the socket
        they connect to, by its path.
        sockets: listening Unix stream sockets to serve on instead, as systemd hands them over; they
        are closed by `stop`, so that such a server can be started once.
        handed: another server's sockets (`handed`), for those of the paths that they are of; their
        files are the other one's until `take_over`.
        on_end: called, on a thread of the server, when it ends without having been told to.
        on_ready: called, on a thread of the server, before the first client is served; `about` is
        known then; a `HesperError` that it raises, `start` does.
        Raises `errors.OptionError`.
        """
        super().__init__(on_end, on_ready)
        check_kind("socket", socket, (str, os.PathLike), "must be the path of a Unix socket")
        self.options = VtestOptions() if options is None else options
        check_kind("options", self.options, VtestOptions, "must be hesper.VtestServer.Options(...)")
        self._given: list[socket_module.socket] | None = list(sockets) or None
        self._handed = {each.path: each for each in handed}
        self._paths = [] if sockets else [os.path.abspath(each) for each in (socket, *more)]
        self._kinds = {os.path.abspath(path): name for path, name in socket_classes.items()}
        classes = Classes(self.options.classes, self.options.limits)
        for path, name in self._kinds.items():
            classes.named(name)
            if self._paths and path not in self._paths:
                raise OptionError("socket_classes", path, "is none of the server's sockets")

    def __str__(self) -> str:
        """As in log lines."""
        return f"vtest server on {' and '.join(self._paths) or 'given sockets'}"

    def _begin(self) -> Run:
        if self._paths and self._given is None:
            access = Access(self.options.mode, self.options.group_id)
            listeners = self._bind(access)
        elif self._given:
            listeners = [adopt(each, self._kind(each.getsockname())) for each in self._given]
            self._given = []
            self._paths = [listener.path for listener in listeners]
        else:
            raise StateError(f"{self}: the sockets it was given are closed; make another server")
        try:
            return _VtestRun(listeners, self.options)
        except OSError as error:
            for listener in listeners:
                listener.close()
            raise StartError(f"{self}: {error}") from error

    def _bind(self, access: Access) -> list[Listener]:
        """Listen on all paths, or on none.  Raises `ListenError`."""
        with contextlib.ExitStack() as stack:
            listeners: list[Listener] = []
            for path in self._paths:
                theirs = self._handed.get(path)
                if theirs is not None and theirs.sock.fileno() >= 0:
                    listeners.append(adopt(theirs.sock, self._kind(path)))
                else:
                    listeners.append(bind(path, access, self._kind(path)))
                stack.callback(listeners[-1].close)
            stack.pop_all()
        return listeners

    def take_over(self, clients: int) -> None:
        """Have the files of the sockets that it was handed: the other server has retired.

        clients: what that one's `retire` has returned; clients are numbered from there on.
        In `on_ready`, before the first.
        """
        run = self._run
        if not isinstance(run, _VtestRun):
            raise StateError(f"{self}: start() it first")
        access = Access(self.options.mode, self.options.group_id)
        for listener in run.listeners:
            theirs = self._handed.get(listener.path)
            if theirs is not None:
                listener.own(theirs.identity, access)
        run.supervisor.count_from(clients)

    def handed(self) -> list[Handed]:
        """Its listening sockets, for another server that is to take its place."""
        run = self._running()
        if any(listener.sock.fileno() < 0 for listener in run.listeners):
            raise StateError(f"{self}: another server has taken its place already")
        return [listener.handed() for listener in run.listeners]

    def retire(self, kept: Collection[int] = ()) -> int:
        """Take no more clients, and end after the last, see `Server.retire`."""
        number = self._running().supervisor.retire(kept, WATCH_PATIENCE)
        if number is None:
            raise StateError(f"{self}: it has not answered in {WATCH_PATIENCE:g} s")
        return number

    def _running(self) -> _VtestRun:
        if not isinstance(self._run, _VtestRun) or not self.is_running:
            raise StateError(f"{self}: it does not run; start() it first")
        return self._run

    def _kind(self, path: str) -> str:
        """Name of the class of those who connect to a socket, if it has one."""
        return self._kinds.get(path, "")

    @property
    def sockets(self) -> tuple[str, ...]:
        """Paths of the sockets, absolute unless they were given."""
        return tuple(self._paths)

    @property
    def clients(self) -> int:
        """How many clients are served now."""
        run = self._run
        return run.supervisor.serving if isinstance(run, _VtestRun) else 0

    def client_environment(
        self,
        venus: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> dict[str, str]:
        """Variables that make a program's Vulkan go to this server, to be added to `environ`.

        venus: manifest of Mesa's Venus driver; None: the first that is installed.
        Raises `errors.NoVenusError`, and `errors.StateError` for sockets not yet taken over.
        """
        if not self._paths:
            raise StateError(f"{self}: start() it first")
        return client_environment(find_venus(venus, environ), self._paths[0], environ)
