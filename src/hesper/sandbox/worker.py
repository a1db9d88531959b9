"""What a worker does to be confined: `begin` first, `confine` before the driver is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hesper.log import get_logger
from hesper.portable import is_linux, is_macos
from hesper.sandbox import Mode, files, landlock, macos, namespaces, process, rlimits, seccomp
from hesper.sandbox.needs import needs_of
from hesper.sandbox.report import Reporter

Everywhere = Callable[[Callable[[], None]], None]
"""Calls a function on each thread that there is."""

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What a worker will need."""

    driver: str = ""
    """The driver's name."""
    files: Sequence[str] = ()
    """What it consists of: manifest and libraries."""
    memory: int = 0
    """Bytes, as the next a limit of the client; 0: there is none yet."""
    threads: int = 0
    descriptors: int = 0
    is_first: bool = False
    """Whether it is the server's first: what is not to be had here is said once."""


class _Worker:
    """The process at hand, if it is a worker, or one that workers are forked from."""

    def __init__(self) -> None:
        self.mode: Mode = "off"
        self.control = -1
        self.is_apart = False
        self.kept: list[int] = []
        self.is_confined = True
        self.reporter: Reporter | None = None
        self.cache = ""


_this = _Worker()


def inherit(*fds: int) -> None:
    """Take note that this process is apart, as far as it can be; its forks keep `fds`."""
    _this.is_apart = True
    _this.kept += fds


def begin(mode: Mode, control: int) -> None:
    """Give up what no worker needs; on the main thread, before there are others.

    control: the descriptor of the supervisor's socket.  Raises `OSError`.
    """
    _this.mode, _this.control, _this.is_confined = mode, control, mode == "off"
    if mode == "off":
        return
    # One that is spawned can have all but a namespace of processes, which is for children.
    wanted = namespaces.OF_A_PROCESS
    alone = mode == "on" and is_linux() and not _this.is_apart
    if alone and not namespaces.obstacle(wanted):
        namespaces.enter(wanted)
        rlimits.bound_threads()
    process.give_up(control, *_this.kept, hidden=mode == "on")


def keep_shaders(folder: str) -> None:
    """Have the driver keep shaders there; empty: nowhere.  Before `confine`.

    Until then nothing leads there: what looks for drivers before that is not confined.
    """
    _this.cache = folder


def confine(
    wants: Wants = Wants(),
    *,
    everywhere: Everywhere = lambda function: function(),
) -> None:
    """Give up all that is left but what `wants` says; nothing where that has been done.

    Raises `OSError`.
    """
    os.environ.update(files.cache_variables(_this.cache, os.environ))
    if _this.is_confined:
        return
    _this.is_confined = True
    needs = needs_of(wants.driver)
    allowed = files.needed(needs, wants.files, _this.cache)
    if is_macos() and _this.mode == "on":
        macos.obey(macos.profile(allowed))
    if not is_linux():
        return
    if _this.mode == "report":
        _this.reporter = Reporter(_this.control, os.getpid())
        program = seccomp.worker_filter(needs, os.getpid(), report=True)
        listener = seccomp.install(program, listener=True)
        _this.reporter.listen(listener, allowed.read, allowed.write)
        return
    if wants.memory:
        rlimits.limit(needs, wants.memory, wants.threads, wants.descriptors)
    without = {}
    try:
        _close_files(allowed, everywhere)
    except OSError as error:
        without["landlock"] = str(error)
    if why := seccomp.obstacle():
        without["seccomp"] = why
    else:
        seccomp.install(seccomp.worker_filter(needs, os.getpid()))
    say = _log.warning if wants.is_first else _log.debug
    for layer, why in without.items():
        say("a layer of the sandbox is not to be had", layer=layer, reason=why)


def _close_files(allowed: landlock.Files, everywhere: Everywhere) -> None:
    rules = landlock.make_rules(allowed)
    try:
        everywhere(lambda: landlock.obey(rules))
    finally:
        os.close(rules)
