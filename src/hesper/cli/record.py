"""Record what a program asks of Vulkan, to inspect and replay it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hesper import log
from hesper.api.recording import SUFFIX, check_recording
from hesper.cli import EXIT_USAGE
from hesper.cli._server import ServerOptions
from hesper.cli.run import end_like, manifest_for, serve_program

check_recording()
command = App(name="record", usage="Usage: hesper record [OPTIONS] -- COMMAND...")


@command.default
def record(
    *words: Annotated[str, Parameter(name="COMMAND")],
    venus: Annotated[Path | None, Parameter(negative=())] = None,
    server: ServerOptions = ServerOptions(),  # noqa: B008  frozen
) -> None:
    """Record what a program asks of Vulkan, to inspect and replay it.

    As `hesper run`, with a recording of each Vulkan instance in this folder, or in that of
    --record. It holds what the program draws, computes and reads: look into it with
    `hesper inspect` before you give it away.

    Example: `hesper record -- vkcube --c 100`

    Parameters
    ----------
    words:
        The program and its arguments.
    venus:
        Manifest of the Mesa Venus driver, where it is not found by itself.
    server:
        How the program is served.
    """
    if not words:
        print("hesper: no program: say hesper record -- COMMAND", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    folder = server.record or Path()
    manifest = manifest_for(words[0], venus)
    log.configure(level=server.log_level or "warning")
    before = _files(folder)
    status = serve_program(words, manifest, replace(server, record=folder))
    made = sorted(_files(folder) - before)
    for path in made:
        print(f"recorded {path}, {path.stat().st_size} bytes", file=sys.stderr)
    if not made:
        print("hesper: nothing was recorded", file=sys.stderr)
    end_like(status)


def _files(folder: Path) -> set[Path]:
    return set(folder.glob(f"*{SUFFIX}"))
