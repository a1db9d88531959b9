"""What `hesper vm list`, `show`, `stop` and others do: machines that run, by their names."""

from __future__ import annotations

import base64
import json as json_module
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from hesper.cli import fail
from hesper.display.snapshot import path_of
from hesper.vm import registry
from hesper.vm.chords import chord, typed

STOP_SECONDS = 120.0
"""For the guest to shut down."""
LOOK_SECONDS = 0.2


def add_to(app: App) -> None:
    """Add the commands."""
    app.command(list_machines, name="list")
    app.command(show)
    app.command(stop)
    app.command(wake)
    app.command(screenshot)
    app.command(send_key)


def list_machines(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Say which machines run.

    Parameters
    ----------
    json:
        Print JSON.
    """
    found = []
    for name in registry.names():
        try:
            found.append(registry.ask(name, "show"))
        except registry.MachineError:
            continue  # it has just ended
    if json:
        print(json_module.dumps(found))
        return
    for each in found:
        memory = f"{each['memory'] / (1 << 30):.1f}G"
        print(f"{each['name']}  {each['state']}  {each['cpus']} CPUs, {memory}  {each['boots']}")


def show(name: str, *, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Show what a machine is like, and where its screens are.

    Parameters
    ----------
    name:
        The machine's name, as `hesper vm list` has it.
    json:
        Print JSON.
    """
    answer = registry.ask(name, "show")
    if json:
        print(json_module.dumps(answer))
        return
    places = answer.pop("places")
    for key, value in answer.items():
        print(f"{key}: {_text(value)}")
    print(*places, sep="\n")


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def stop(name: str, *, now: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Press a machine's power button, and wait until it has ended.

    Parameters
    ----------
    name:
        The machine's name.
    now:
        End it at once, as by pulling the plug.
    """
    registry.ask(name, "stop", now=now)
    deadline = time.monotonic() + STOP_SECONDS
    while name in registry.names():
        if time.monotonic() > deadline:
            fail(f"{name} has not shut down in {STOP_SECONDS:g} s: hesper vm stop {name} --now")
        time.sleep(LOOK_SECONDS)


def wake(name: str) -> None:
    """Wake a guest that sleeps, by its power button: one that is awake shuts down.

    Parameters
    ----------
    name:
        The machine's name.
    """
    registry.ask(name, "stop")


def screenshot(name: str, file: Path) -> None:
    """Write what a machine's screens show to PNG files.

    Parameters
    ----------
    name:
        The machine's name.
    file:
        Where the first screen's picture goes; that of the second goes to FILE with `-2`.
    """
    pictures = registry.ask(name, "screenshot")["pictures"]
    if not pictures:
        fail(f"{name} has no screen of Hesper's")
    for number, picture in enumerate(pictures, 1):
        path = path_of(file, number)
        try:
            path.write_bytes(base64.b64decode(picture))
        except OSError as error:
            fail(f"{path}: {error.strerror}")
        print(path)


def send_key(
    name: str, *keys: str, text: Annotated[str, Parameter(allow_leading_hyphen=True)] = ""
) -> None:
    """Press keys of a machine's keyboard.

    Examples: `hesper vm send-key debian ctrl-alt-f2`,
    `hesper vm send-key debian --text "ls -l" ret`

    Parameters
    ----------
    name:
        The machine's name.
    keys:
        Keys by QEMU's names; those of one word are held together.
    text:
        What to type on a US keyboard before that.
    """
    if not keys and not text:
        fail("no keys: name some, as in ctrl-alt-f2, or --text")
    try:
        steps = [*typed(text), *map(chord, keys)]
    except ValueError as error:
        fail(str(error))
    registry.ask(name, "keys", steps=steps)
