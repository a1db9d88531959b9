"""Measure what Hesper costs: the same work on the bare driver, through Hesper, through its peer."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hesper import drivers
from hesper.api.client import client_environment, find_venus
from hesper.bench.document import Document, Machine, SuiteResult, now
from hesper.bench.explain import STAGES
from hesper.bench.explain import explain as explanations
from hesper.bench.explain import table as explanation_table
from hesper.bench.picture import SUFFIXES, write_picture
from hesper.bench.report import show
from hesper.bench.runner import Runner, Say
from hesper.bench.sides import (
    HESPER,
    PEER,
    PEER_COMMAND,
    Side,
    SideError,
    bare_side,
    hesper_side,
    peer_side,
    seen_side,
)
from hesper.bench.suites import SUITES, USUAL
from hesper.bench.suites.base import Options
from hesper.cli import EXIT_FAILURE, PLAIN_WIDTH, _version, fail
from hesper.cli._signals import interrupting
from hesper.errors import NoDriverError

if TYPE_CHECKING:
    from rich.console import Console

    from hesper.api.drivers import Driver

SuiteName = Literal["latency", "stream", "memory", "instances", "app", "scale", "footprint", "soak"]

CROWD, QUICK_CROWD = Options.crowd, 20

_SAME = {
    # Shaders are compiled anew on every side, or the second side would find the first one's.
    "MESA_SHADER_CACHE_DISABLE": "true",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured, and against what."""

    suite: Annotated[tuple[SuiteName, ...], Parameter(negative=())] = ()
    """What to measure; can be repeated. Default: everything but `soak`."""
    runs: int | None = None
    """Rounds in which each side has its turn. Default: 5, or 2 with --quick."""
    quick: Annotated[bool, Parameter(negative=())] = False
    """Less of everything: to try it, not to quote it."""
    driver: str | None = None
    """The host's Vulkan driver: its name (see `hesper drivers`) or its manifest. Default: the one
    that can do most for guests."""
    peer: bool | None = None
    """Measure virgl_test_server, too. Default: where it is installed."""
    peer_command: str = PEER_COMMAND
    """Another Venus server in its place; {socket} stands for the socket's path."""
    as_seen: bool | None = None
    """Run programs on the bare driver a second time, showing them no more of it than a guest sees.
    Default: on a GPU."""
    clients: Annotated[tuple[int, ...], Parameter(negative=(), consume_multiple=True)] = (
        Options.clients
    )
    """Numbers of clients at a time, for the suite `scale`."""
    crowd: int | None = None
    """Clients that are there together, for the same suite: what they cost in memory, and how fast
    one more is served. 0: none. Default: 200, or 20 with --quick."""
    model: Annotated[Path | None, Parameter(negative=())] = None
    """A model (GGUF) for llama-bench. Default: a small one of random numbers."""
    soak_seconds: float = Options.soak_seconds
    """How long the suite `soak` works on each side."""

    def check(self) -> None:
        """End the program when something cannot be."""
        if self.runs is not None and self.runs < 1:
            fail(f"--runs {self.runs}: must be at least 1")
        if any(count < 1 for count in self.clients):
            fail("--clients: must be at least 1")
        if self.crowd is not None and self.crowd < 0:
            fail(f"--crowd {self.crowd}: must not be negative")
        if self.soak_seconds < 0:
            fail(f"--soak-seconds {self.soak_seconds:g}: must not be negative")
        if self.model is not None and not self.model.is_file():
            fail(f"--model {self.model}: no such file")


def command(
    *words: Annotated[str, Parameter(allow_leading_hyphen=False)],
    options: BenchOptions = BenchOptions(),
    json: Annotated[Path | None, Parameter(negative=())] = None,
    picture: Annotated[Path | None, Parameter(negative=())] = None,
    read: Annotated[Path | None, Parameter(negative=())] = None,
    explain: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Measure what Hesper costs: the same work on the bare driver, through Hesper and its peer.

    The sides take turns, after a warm-up that does not count. On a machine that is busy otherwise
    the figures say little: look at the spread beside them. Ends with 1 when something failed.
    Interrupted, it still shows and writes the suites that are done.

    Parameters
    ----------
    words:
        With --explain: a program and its arguments, after `--`, to look at instead of our own work.
    options:
        What is measured.
    json:
        Write all figures there.
    picture:
        Draw them there, as .svg or .png.
    read:
        Measure nothing: show, and draw, what --json has written there.
    explain:
        Measure nothing: show where Hesper's time goes, by stage and command.
    """
    options.check()
    if picture is not None and picture.suffix not in SUFFIXES:
        fail(f"--picture {picture}: the name must end in {' or '.join(SUFFIXES)}")
    if words and not explain:
        fail(f"{words[0]}: a program is for --explain")
    try:
        with interrupting([signal.SIGTERM]):
            if explain:
                _explain(options, words)
                return
            document = Document.read(read) if read is not None else _measure(options)
            _put_out(document, json, picture)
    except OSError as error:
        fail(str(error))
    if document.failures:
        raise SystemExit(EXIT_FAILURE)


def _driver(name: str | None) -> Driver:
    """The driver that serves guests, or the one named.  Raises `NoDriverError`."""
    found = drivers(name)
    if found.chosen is None:
        raise NoDriverError(found.problem)
    return found.chosen


def _measure(options: BenchOptions) -> Document:
    """Measure; progress goes to standard error."""
    driver = _driver(options.driver)
    runs = options.runs or (2 if options.quick else 5)
    same = Options(
        options.quick,
        tuple(options.clients),
        options.crowd if options.crowd is not None else QUICK_CROWD if options.quick else CROWD,
        driver.is_software,
        options.model,
        options.soak_seconds,
    )
    begun = now()
    with tempfile.TemporaryDirectory(prefix="hesper-bench-") as folder, _progress() as say:
        as_seen = not driver.is_software if options.as_seen is None else options.as_seen
        sides, notes = _sides(driver, options, Path(folder) / "view" if as_seen else None)
        runner = Runner(sides, same, runs, say)
        runner.check()
        results = _suites(runner, dict.fromkeys(options.suite or USUAL))
    device = driver.devices[0]
    return Document(
        version=_version(),
        time=begun,
        command=shlex.join(["hesper", *sys.argv[1:]]),
        machine=Machine.this(),
        driver=f"{device.name}, {device.driver_name} {device.driver_info}".rstrip(", "),
        devices=runner.devices,
        peer_command=options.peer_command if PEER in runner.devices else "",
        runs=runs,
        suites=tuple(results),
        notes=(*notes, *runner.notes),
        failures=tuple(runner.failures),
    )


def _suites(runner: Runner, names: Iterable[str]) -> list[SuiteResult]:
    """Measure suites, or those until an interruption, which is a failure."""
    results: list[SuiteResult] = []
    for name in names:
        try:
            results.append(runner.measure(SUITES[name]))
        except KeyboardInterrupt:
            if not results:
                raise
            runner.failures.append(f"interrupted in the suite {name}, which is missing")
            break
    return results


def _explain(options: BenchOptions, words: Sequence[str]) -> None:
    """Look at Hesper while it works, and show what was seen."""
    sides, _ = _sides(_driver(options.driver), replace(options, peer=False), None)
    side = next(side for side in sides if side.name == HESPER)
    with _progress() as say:
        found = list(explanations(side, words, say, quick=options.quick))
    console = _console()
    console.print(explanation_table(found))
    for stage, text in STAGES.items():
        console.print(f"{stage}: {text}", style="dim")


def _sides(
    driver: Driver, options: BenchOptions, view: Path | None
) -> tuple[list[Side], list[str]]:
    """The sides to compare, and notes about those that are missing.

    view: a file for what a guest sees of the driver; None: no side is to see it so.
    """
    bare = {**driver.environment, **_SAME}
    # The path is filled in when the server has one.
    client = {**client_environment(find_venus(None), "/{socket}"), **_SAME}
    client["VTEST_SOCKET_NAME"] = "{socket}"
    # Nothing is shown here: no side is to copy its pictures for a window system.
    client.pop("MESA_VK_WSI_DEBUG")
    # Mesa as it comes.
    client.pop("VN_PERF")
    layers = ("VK_LOADER_LAYERS_DISABLE", "NODEVICE_SELECT", "VK_ADD_DRIVER_FILES")
    client |= {name: bare[name] for name in layers if name in bare}
    serve = [sys.executable, "-c", "from hesper.cli import main; main()", "serve"]
    serve += ["--socket", "{socket}", "--driver", driver.manifest]
    sides = [bare_side(bare), hesper_side(bare, client, serve, view)]
    if view is not None:
        sides.append(seen_side(bare, view))
    notes = []
    if options.peer is not False:
        try:
            sides.append(peer_side(bare, client, options.peer_command))
        except SideError as error:
            if options.peer:
                raise
            notes.append(str(error))
    return sides, notes


@contextlib.contextmanager
def _progress() -> Iterator[Say]:
    """Say what is being done, on standard error: one line that changes, where that is possible."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
    else:
        yield lambda line: print(line, file=sys.stderr, flush=True)


def _put_out(document: Document, json: Path | None, picture: Path | None) -> None:
    """Show the results, and write the files that are wanted."""
    show(document, _console())
    if json is not None:
        document.write(json)
    if picture is not None:
        write_picture(document, picture)


def _console() -> Console:
    """Standard output, for tables."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
