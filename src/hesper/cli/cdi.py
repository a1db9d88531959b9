"""Give containers the GPU as a CDI device, for podman, Docker, containerd and CRI-O."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from hesper.api.client import find_venus
from hesper.cli import EXIT_FAILURE, PLAIN_WIDTH, fail
from hesper.containers import cdi
from hesper.containers.driver_set import load_set, make_set
from hesper.containers.injection import plan
from hesper.containers.rootfs import Root

command = App(name="cdi")

_SPEC_FOLDERS = tuple(map(Path, cdi.SPEC_FOLDERS))


def parse_class(text: str) -> tuple[str, Path]:
    """Parse `NAME=SOCKET`.  Raises `ValueError`."""
    name, separator, socket = text.partition("=")
    if not name or not separator or not socket:
        raise ValueError(f"{text!r} is no class: it must be NAME=SOCKET")
    return name, Path(socket)


def _check_classes(_: Any, classes: Sequence[str]) -> None:
    names = [parse_class(each)[0] for each in classes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"class {twice}: it stands there twice")


@command.command
def generate(
    *,
    socket: Annotated[Path | None, Parameter(negative=())] = None,
    class_: Annotated[
        tuple[str, ...],
        Parameter(name="--class", metavar="NAME=SOCKET", validator=_check_classes, negative=()),
    ] = (),
    output: Annotated[Path | None, Parameter(negative=())] = None,
    inject: bool = True,
    venus: Annotated[Path | None, Parameter(negative=())] = None,
    driver_folder: Annotated[Path | None, Parameter(negative=())] = None,
) -> None:
    """Write the CDI file by which container runtimes give containers the GPU.

    Afterwards `podman run --device hesper.dev/gpu=all IMAGE` has it, and so has `docker run`.

    Images with Mesa 24.0 or newer use their own Venus driver; those without get this machine's, if
    their C library allows it: a hook, started with each container, looks, and refuses with a
    reason.

    Parameters
    ----------
    socket:
        Where `hesper serve` listens, for the device `all`; in a folder of its own, which containers
        get mounted read-only.
    class_:
        The socket of a class of that server, or of another one with a `--limit` of its own, for the
        device `class-NAME`. Can be repeated.
    output:
        The file, such as /etc/cdi/hesper.json. Default: standard output.
    inject:
        Whether images without a Venus driver get this machine's.
    venus:
        Manifest of the Mesa Venus driver, where it is not found by itself.
    driver_folder:
        Where this machine's driver is put for containers. Default: /var/lib/hesper/containers for
        root, ~/.local/share/hesper/containers for others.
    """
    classes = dict(map(parse_class, class_))
    cdi.specification(socket, classes, None)  # complains before anything is written
    found = make_set(find_venus(venus), driver_folder or _driver_folder()) if inject else None
    content = cdi.specification(socket, classes, found)
    if output is None:
        print(json_module.dumps(content, indent=2))
        return
    cdi.write(content, output)
    if found is not None:
        _warn_of_the_hook()
    for device in content["devices"]:
        print(f"{output}: {cdi.device_name(device['name'])}")


@command.command(name="list")
def list_(
    *,
    folder: Annotated[tuple[Path, ...], Parameter(negative=())] = _SPEC_FOLDERS,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """List Hesper's devices that container runtimes find.

    Parameters
    ----------
    folder:
        Where to look. Can be repeated.
    json:
        Print the devices as JSON.
    """
    found = cdi.devices(folder)
    if json:
        print(json_module.dumps([asdict(device) for device in found], indent=2))
        return
    if not found:
        fail(f"no device of Hesper's in {' or '.join(map(str, folder))}: say hesper cdi generate")
    _show(found)


@command.command
def check(root: Path, *, driver_set: Annotated[Path | None, Parameter(negative=())] = None) -> None:
    """Say what a container of an image would get, or why it cannot have the GPU.

    Ends with 1 where it could not. For an image of podman's: `hesper cdi check $(podman image mount
    IMAGE)`, rootless inside of `podman unshare`.

    Parameters
    ----------
    root:
        Folder with the image's file system.
    driver_set:
        What `hesper cdi generate` has put there for containers. Default: as it would now.
    """
    if not root.is_dir():
        fail(f"{root}: no such folder")
    found = load_set(driver_set) if driver_set else make_set(find_venus(), _driver_folder())
    print(f"{root} {plan(Root(root, {}), found).summary}")


def _warn_of_the_hook() -> None:
    """Say so where others decide what root runs for each container."""
    for place in cdi.changeable(cdi.hook_places()) if os.geteuid() == 0 else ():
        print(
            f"hesper: others than root can change {place}, and so what root runs when a container"
            " starts: install Hesper where root alone can write",
            file=sys.stderr,
        )


def _driver_folder() -> Path:
    """Where this user's drivers for containers are."""
    if os.geteuid() == 0:
        return Path("/var/lib/hesper/containers")
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(home, "hesper/containers")


def _show(found: list[cdi.CdiDevice]) -> None:
    """Print for people; colours only on a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Device", "Socket", "Served", "Driver", "File"):
        table.add_column(title)
    for device in found:
        served = "[green]yes" if device.is_served else "[red]no"
        driver = "the image's, or this machine's" if device.injects else "the image's"
        table.add_row(device.name, device.socket, served, driver, device.file)
    console.print(table)
    if not all(device.is_served for device in found):
        raise SystemExit(EXIT_FAILURE)
