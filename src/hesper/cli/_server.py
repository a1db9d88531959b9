"""Options that `serve` and `run` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from hesper import Limits
from hesper.api.options import MOST_PATIENCE
from hesper.api.vtest import MOST_PLACES, VtestOptions
from hesper.classes import ClientClass
from hesper.cli import fail
from hesper.cli._recording import Recorded
from hesper.cli._sizes import LEAST_WITHOUT_UNIT, UNITS
from hesper.errors import OptionError
from hesper.portable import user_id

SERVER = Group("Server", sort_key=1)
LIMITS = Limits.__struct_fields__
BYTES = {"memory", "arena", "total_memory"}
"""Limits that are numbers of bytes."""
CLASS_LIMITS = tuple(name for name in LIMITS if name != "total_memory")
"""What a class can have of its own."""


def parse_limit(text: str) -> tuple[str, int]:
    """Parse `NAME=NUMBER`; the number may end in K, M, G or T.  Raises `ValueError`."""
    name, separator, number = text.partition("=")
    name = name.replace("-", "_")
    unit = UNITS.get(number[-1:].upper(), 0)
    digits = number[:-1] if unit else number
    if name not in LIMITS or not separator or not digits.isdecimal() or int(digits) < 1:
        raise ValueError(
            f"{text!r} is no limit: it must be NAME=NUMBER, NAME being one of {', '.join(LIMITS)},"
            " NUMBER at least 1, with K, M, G or T if you like"
        )
    if name in BYTES and not unit and int(digits) < LEAST_WITHOUT_UNIT:
        raise ValueError(f"{text!r} is a limit in bytes: say it with a unit, as in {text}M")
    return name, int(digits) * (unit or 1)


def permissions(option: str, text: str) -> int:
    """Parse permissions in octal.  Ends the program when they are none."""
    try:
        value = int(text, 8)
    except ValueError:
        value = -1
    if not 0 <= value <= 0o777:
        fail(f"{option} {text}: must be octal permissions, as in 0660")
    return value


def parse_class(text: str, base: Limits) -> ClientClass:
    """Parse `NAME:KEY=VALUE,...`.  base: limits that it has unless it says others.

    Raises `ValueError`.
    """
    name, _, rest = text.partition(":")
    limits = {key: getattr(base, key) for key in LIMITS}
    weight, users, cgroups, programs = 1, list[int](), list[str](), list[str]()
    once = set[str]()
    for part in filter(None, rest.split(",")):
        key, separator, value = part.partition("=")
        if key in once:
            raise ValueError(f"class {name}: {part!r}: {key} stands there twice")
        if key not in {"user", "uid", "cgroup", "program"}:
            once.add(key)
        if key == "weight" and value.isdecimal():
            weight = int(value)
        elif key in {"user", "uid"} and value:
            users.append(_user(name, value))
        elif key == "cgroup" and value:
            cgroups.append(value)
        elif key == "program" and value:
            programs.append(value)
        elif separator and key in CLASS_LIMITS:
            limits.update([parse_limit(part)])
        else:
            raise ValueError(
                f"class {name}: {part!r}: must be KEY=VALUE, KEY being weight (a number), user"
                " or cgroup (for a virtual machine: program), or a limit:"
                f" {', '.join(CLASS_LIMITS)}"
            )
    made = Limits(**limits)
    return ClientClass(
        name=name,
        weight=weight,
        limits=made,
        users=tuple(users),
        cgroups=tuple(cgroups),
        programs=tuple(programs),
    )


def _user(name: str, value: str) -> int:
    number = int(value) if value.isdecimal() else user_id(value)
    if number is None:
        raise ValueError(f"class {name}: user {value}: this system has no such user")
    return number


def check_classes(_: Any, classes: Sequence[str]) -> None:
    base = Limits()
    for each in classes:
        try:
            parse_class(each, base)
        except OptionError as error:
            raise ValueError(str(error)) from None


def _check_limits(_: Any, limits: Sequence[str]) -> None:
    for limit in limits:
        parse_limit(limit)


def _check_patience(_: Any, patience: int | None) -> None:
    if patience is not None and not 0 <= patience <= MOST_PATIENCE:
        raise ValueError(f"must be 0 to {MOST_PATIENCE}")


Patience = Annotated[
    int | None, Parameter(metavar="MICROSECONDS", validator=_check_patience, negative=())
]


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True, kw_only=True)
class ServerOptions(Recorded):
    """How clients are served."""

    driver: Annotated[tuple[str, ...], Parameter(metavar="NAME[#DEVICE]", negative=())] = ()
    """The host's Vulkan driver: its name (see `hesper drivers`) or its manifest; with a number, one
    of its devices, counted from 0. Can be repeated, for several GPUs: a client goes to the one
    that has the fewest, its program's next ones to the same. Default: the driver that can do most
    for guests."""
    host_profile: Annotated[str | None, Parameter(name="--host-profile")] = None
    """Show guests no more than another driver would offer: a file, `moltenvk` or `kosmickrisp`."""
    emulate: bool = True
    """Supply what the driver lacks, where that is sound: null descriptors, which OpenGL (zink) and
    Direct3D (DXVK) want. Default: yes."""
    max_clients: int | None = None
    """Clients served at a time; more wait a few seconds and are refused. Default: as many as memory
    has room for."""
    warm: int | None = None
    """Workers kept ready for the next clients. Default: 2 for `serve`, 1 for `run`."""
    limit: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME=NUMBER", validator=_check_limits, negative=()),
    ] = field(default=())
    """What one client may use at most: memory, objects, devices, rings, fences, arena, resources,
    threads or descriptors, as in `memory=8G`; or all of them together: total_memory. Default: three
    quarters of the machine's memory for one, seven eighths for all. Can be repeated."""
    class_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--class", metavar="NAME:KEY=VALUE,...", validator=check_classes, negative=()
        ),
    ] = field(default=())
    """A class of clients, as in `gold:memory=8G,weight=4`: limits of its own, as of --limit, and
    its weight where clients share the GPU's time. Who is in it: those of a socket (`--socket
    PATH:class=NAME`), of a user (`user=NAME`), or of a control group and those below it
    (`cgroup=/PATH`). Can be repeated."""
    shares: bool = True
    """Share the GPU's time among clients by their weights. Default: yes."""
    max_clients_per_process: int | None = None
    """The same of one process. Default: half of --max-clients, eight at least; for `run`, all."""
    max_clients_per_user: int | None = None
    """The same of one user. Default: three quarters of --max-clients, eight at least, where --mode
    lets others than you connect, else all."""
    silence_timeout: float = 3.0
    """Seconds that a client may be silent until it has introduced itself; 0: for ever."""
    handshake_timeout: float = 30.0
    """Seconds a client has to introduce itself, be it silent or not; 0: for ever."""
    patience: Patience = None
    """Microseconds for which threads stay awake for what a client may send next: fewer delays, more
    processor time. Default: 500 with a GPU and four processors or more, else 0."""
    sandbox: Literal["on", "report", "off"] = "on"
    """How the processes are confined that run clients' commands. `report` logs what would be
    refused, for a driver that needs more."""
    shader_cache: Literal["client", "server", "off"] = "client"
    """Who shares compiled shaders that are kept for the next time: programs of one user, one
    container or one class (`client`), all clients of this server, or nobody, as none are kept. A
    client that takes over its worker can forge them for the others."""
    sample: int = 0
    """Look every so many microseconds at what each client's streams are doing, and log it when
    the client leaves (see `hesper bench --explain`)."""
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    """Log what is at least as important as this. Default: info for `serve`, warning for `run`."""

    def options(
        self, *, warm: int, mode: int = 0o600, group: str | None = None, is_shared: bool = False
    ) -> VtestOptions:
        """The options for a server.  Raises `OptionError`.

        warm: workers kept ready unless the user has said.  mode, group: of the socket.
        is_shared: whether it is for more than one program.
        """
        limits = Limits(**dict(map(parse_limit, self.limit)))
        if twice := next((each for each in self.driver if self.driver.count(each) > 1), None):
            fail(f"--driver {twice}: stands there twice; a GPU is served once, by all its clients")
        return VtestOptions(
            driver=next(iter(self.driver), None),
            more_drivers=self.driver[1:],
            host_profile=self.host_profile,
            emulate=self.emulate,
            limits=limits,
            classes=tuple(parse_class(each, limits) for each in self.class_),
            shares=self.shares,
            patience=self.patience,
            sandbox=self.sandbox,
            shader_cache=self.shader_cache,
            mode=mode,
            group=group,
            max_clients=self.max_clients,
            warm=warm if self.warm is None else self.warm,
            max_clients_per_process=self.max_clients_per_process
            or (None if is_shared else MOST_PLACES),
            max_clients_per_user=self.max_clients_per_user,
            silence_timeout=self.silence_timeout or None,
            handshake_timeout=self.handshake_timeout or None,
            sample=self.sample,
            record=self.recording,
        )
