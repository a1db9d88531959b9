"""Look into a recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hesper import log
from hesper.api.options import HostOptions
from hesper.api.recording import ask, check_recording, make_request
from hesper.cli import fail

if TYPE_CHECKING:
    from hesper.api.recording import Said

check_recording()


def command(  # noqa: PLR0913  an option each
    recording: Path,
    *,
    commands: Annotated[bool, Parameter(negative=())] = False,
    name: Annotated[str | None, Parameter(metavar="PATTERN")] = None,
    object: Annotated[int | None, Parameter(metavar="ID")] = None,  # noqa: A002  the option's name
    ring: Annotated[int | None, Parameter(metavar="ID")] = None,
    begin: Annotated[float | None, Parameter(metavar="SECONDS")] = None,
    end: Annotated[float | None, Parameter(metavar="SECONDS")] = None,
    whole: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
    slow: Annotated[bool, Parameter(negative=())] = False,
    shaders: Annotated[Path | None, Parameter(metavar="FOLDER", negative=())] = None,
    diff: Annotated[Path | None, Parameter(metavar="OTHER", negative=())] = None,
    anonymize: Annotated[Path | None, Parameter(metavar="FILE", negative=())] = None,
    sandbox: Literal["on", "off"] = "on",
) -> None:
    """Look into a recording, which `hesper record` or a server's --record has made.

    Without options: what was recorded, and how it ended. The file may be hostile, as a guest may:
    it is read by a process in a sandbox.

    Parameters
    ----------
    recording:
        The file.
    commands:
        Print every command: number, time, how long it took, ring, parameters, answer.
    name:
        Of these only those with such a name, as in `vkCmdDraw*`.
    object:
        Of these only those that name this object: its life.
    ring:
        Of these only those of this ring; 0: the context's own stream.
    begin:
        Of these only those from this second on.
    end:
        Of these only those up to this second.
    whole:
        Cut no parameters short.
    json:
        Print them as JSON, one a line.
    slow:
        Print where the time went.
    shaders:
        Write the shaders there, as SPIR-V.
    diff:
        Print where that recording differs.
    anonymize:
        Write the recording without contents of memory, strings and other data of its owner to this
        file.
    sandbox:
        `off`: read the file in a process that is not confined.
    """
    log.configure(level="warning")
    wanted = {"name": name, "object": object, "ring": ring, "begin": begin, "end": end}
    filters = {key: value for key, value in wanted.items() if value is not None}
    asked = {
        "commands": commands,
        "slow": slow,
        "shaders": shaders is not None,
        "diff": diff is not None,
        "anonymize": anonymize is not None,
    }
    chosen = [what for what, is_wanted in asked.items() if is_wanted]
    if len(chosen) > 1:
        fail("say one of --commands, --slow, --shaders, --diff, --anonymize")
    what = chosen[0] if chosen else "commands" if filters or json else "summary"
    request = make_request(what, filter=filters, is_json=json, whole=whole)
    paths = [recording] if diff is None else [recording, diff]
    _print(ask(paths, request, HostOptions(sandbox=sandbox)), shaders, anonymize)


def _print(answers: Iterator[Said], shaders: Path | None, anonymized: Path | None) -> None:
    """Print lines, and write files: the other recording, or shaders into their folder."""
    with ExitStack() as stack:
        other = None if anonymized is None else stack.enter_context(anonymized.open("xb"))
        for said in answers:
            if said.text is not None:
                print(said.text)
            elif said.file is not None and other is not None:
                other.write(said.file[1])
            elif said.file is not None and shaders is not None:
                shaders.mkdir(parents=True, exist_ok=True)
                # Not by a name of the worker's choosing: it could be that of a program's settings.
                code = said.file[1]
                path = shaders / f"{sha256(code).hexdigest()[:16]}.spv"
                path.write_bytes(code)
                print(path)
