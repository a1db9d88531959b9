"""What starts workers: a template that forks them; until there is one, each is started anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hesper.isolation.launch import Launcher, Process, Spawner, Template, new_launcher
from hesper.log import get_logger

if TYPE_CHECKING:
    import socket

    from hesper.isolation.turns import Turns
    from hesper.sandbox import Mode

TEMPLATE_BACKOFF = 1.0
"""Seconds until a template that has ended, or could not start, is followed by another; each time in
a row twice as many."""
MOST_TEMPLATE_BACKOFF = 300.0

_log = get_logger("hesper.isolation.crew")


class Launching:
    """Life: made, `begin`, used, `stop`, `close`d."""

    def __init__(self, turns: Turns, service: str, sandbox: Mode) -> None:
        """service, sandbox: see `Supervisor`."""
        self.on_end: Callable[[], None] = lambda: None
        """Called when a worker may have ended."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called when the template is gone: workers that it had not forked yet have ended."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when that has been seen to: workers are started in another way."""
        self._turns = turns
        self._service = service
        self._sandbox = sandbox
        self._launcher: Launcher = Spawner(sandbox)
        self._stopping = False
        self._lost = 0
        """Templates in a row of which none has forked a worker."""

    def begin(self) -> None:
        """Get ready to start workers."""
        try:
            self._use(new_launcher(self._service, self._sandbox))
        except OSError as error:
            self._do_without(str(error))

    def start(self, control: socket.socket, *, background: bool) -> Process:
        """Start a worker, see `Launcher.launch`.  Raises `OSError`."""
        return self._launcher.launch(control, background=background)

    def preload(self, libraries: Sequence[str]) -> None:
        """Have workers share these, unless templates have ended for a reason that nobody knows."""
        if libraries and not self._lost:
            self._launcher.preload(libraries)

    def stop(self) -> None:
        """Make no template any more."""
        self._stopping = True

    def close(self) -> None:
        """Start no more."""
        self._launcher.close()

    def _use(self, launcher: Launcher) -> None:
        """Have workers started by `launcher` from now on."""
        self._launcher = launcher
        if (fd := launcher.fileno()) is not None:
            self._turns.watch(fd, self._hear)

    def _hear(self) -> None:
        """Hear what has become of workers, and do without the launcher if it is gone."""
        launcher = self._launcher
        fd = launcher.fileno()
        if not launcher.hear() and isinstance(launcher, Template) and fd is not None:
            if launcher.has_forked:
                self._lost = 0
            self._turns.unwatch(fd)
            self._do_without(launcher.problem)
            self.on_lost()
            for process in launcher.orphans():
                self._turns.watch(process.watch, self.on_end)
            launcher.close()
            self.on_change()
        self.on_end()

    def _do_without(self, why: str) -> None:
        """Start workers anew until there is another template: none is given up for good."""
        pause = min(MOST_TEMPLATE_BACKOFF, TEMPLATE_BACKOFF * 2**self._lost)
        self._lost += 1
        _log.warning(
            "no template to fork workers from, they are started anew until there is one",
            reason=why,
            next_attempt_in_seconds=pause,
        )
        self._use(Spawner(self._sandbox))
        self._turns.after(pause, self._make_template)

    def _make_template(self) -> None:
        if self._stopping:
            return
        try:
            self._use(Template(self._service, self._sandbox))
        except OSError as error:
            self._do_without(str(error))
        else:
            _log.info("workers are forked from a template again")
