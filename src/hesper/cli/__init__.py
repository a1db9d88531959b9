"""The command `hesper`.  Each file beside this one is a command of that name.

Such a file has a docstring, whose first line is the command's line in `hesper --help`, and
`command`: a function, or a cyclopts `App` of the file's name.  Files whose names begin with an
underscore are no commands.  Only the file of the command that is run gets imported.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hesper import log
from hesper.errors import HesperError, OptionError
from hesper.extras import needed

if TYPE_CHECKING:
    from cyclopts import App

EXIT_FAILURE = 1
EXIT_USAGE = 2

EXTRAS = {
    "bench": "bench",
    "cdi": "cdi",
    "gpu": "vm",
    "guest": "vm",
    "inspect": "trace",
    "kubernetes": "kubernetes",
    "record": "trace",
    "replay": "trace",
    "top": "watch",
    "vm": "vm",
}
"""Commands that a plain installation lacks packages for, and the extra that brings them."""

PLAIN_WIDTH = 240
"""Columns of output that goes to no terminal: lines stay whole for grep."""


def main() -> None:
    """Run the command line."""
    first = sys.argv[1:2]
    log.configure()
    try:
        with needed(f"hesper {' '.join(first)}", EXTRAS.get("".join(first), "all")):
            make_app(first)()
    except OptionError as error:
        fail(f"--{error.option.replace('_', '-')} {error.value}: {error.must}")
    except HesperError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter would complain when it flushes.
        sys.stderr.close()
        raise SystemExit(141) from None


def commands() -> list[str]:
    """Names of all commands."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem.replace("_", "-") for file in files if not file.stem.startswith("_"))


def make_app(first: list[str]) -> App:
    """Make the app; if the `first` argument is a command, with that command alone.

    Ends the program where it is neither a command nor an option.
    """
    from cyclopts import App, Parameter

    app = App(
        name="hesper",
        help="The host's GPU for virtual machines and containers, through Vulkan.",
        version=_version,
        help_on_error=False,
        # That what is not given is empty, zero or off goes without saying.
        default_parameter=Parameter(show_default=lambda value: str(value) if value else None),
    )
    names = commands()
    if first and first[0] not in {*names, *app.help_flags, *app.version_flags}:
        # Here rather than there: cyclopts would import all commands to say that.
        print(f"hesper: no command {first[0]}; there are {', '.join(names)}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    if first and first[0] in names:
        names = first
        # Here rather than there: cyclopts would make another error of what is missing.
        import_module(f"hesper.cli.{_module(first[0])}")
    for name in names:
        module = _module(name)
        # With several commands this is the list of them: their files stay unread beyond a line.
        text = None if names is first else _summary(module)
        app.command(f"hesper.cli.{module}:command", name=name, help=text)
    return app


def fail(message: str) -> NoReturn:
    """End with one clear line on standard error."""
    sys.stdout.flush()
    print(f"hesper: {message}", file=sys.stderr)
    raise SystemExit(EXIT_FAILURE)


def _module(name: str) -> str:
    return name.replace("-", "_")


def _summary(module: str) -> str:
    """The first line of a command file's docstring."""
    with (Path(__file__).parent / f"{module}.py").open(encoding="utf-8") as file:
        return file.readline().strip().strip('"')


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hesper")
    except PackageNotFoundError:
        return "unknown: not installed"
