"""Be a Kubernetes node's device plugin or DRA driver, which give pods the GPU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from hesper import log
from hesper.cli import fail
from hesper.cli._signals import STOPPING, handled
from hesper.cli._sizes import parse_size
from hesper.containers.cdi import ALL, CLASS_PREFIX, SPEC_FOLDERS
from hesper.kubernetes import device_plugin, dra
from hesper.kubernetes.api_server import ACCOUNT, ApiServer, server_url
from hesper.kubernetes.devices import MOST_SHARES
from hesper.kubernetes.slices import SliceOptions

command = App(name="kubernetes")

_SPEC_FOLDERS = tuple(map(Path, SPEC_FOLDERS))
_KUBELET = Path("/var/lib/kubelet")

LogLevel = Literal["debug", "info", "warning", "error"]


def parse_memory(text: str) -> tuple[str, int]:
    """Parse `NAME=SIZE`, NAME being a class, or `all`.  Raises `ValueError`."""
    name, separator, size = text.partition("=")
    if not name or not separator:
        raise ValueError(f"{text!r} is no memory of a device: it must be NAME=SIZE, as in all=16G")
    return name if name == ALL else CLASS_PREFIX + name, parse_size(size)


def _check_memory(_: Any, memory: Sequence[str]) -> None:
    for each in memory:
        parse_memory(each)


def _check_shares(_: Any, shares: int) -> None:
    if not 1 <= shares <= MOST_SHARES:
        raise ValueError(f"must be 1 to {MOST_SHARES}")


Shares = Annotated[int, Parameter(validator=_check_shares)]
Folder = Annotated[Path, Parameter(negative=())]
Folders = Annotated[tuple[Path, ...], Parameter(negative=())]


@command.command
def plugin(
    *,
    shares: Shares = 16,
    kubelet: Folder = _KUBELET,
    cdi_folder: Folders = _SPEC_FOLDERS,
    log_level: LogLevel = "info",
) -> None:
    """Be the node's device plugin: pods ask for `hesper.dev/gpu: 1`.

    The devices are those that `hesper cdi list` shows; a class NAME is `hesper.dev/gpu-NAME`. The
    container runtime must read CDI files. Runs until Ctrl-C or SIGTERM.

    Parameters
    ----------
    shares:
        Containers that may have one device at a time.
    kubelet:
        The kubelet's folder.
    cdi_folder:
        Where CDI files are. Can be repeated.
    log_level:
        Log what is at least as important as this.
    """
    _configure_log(log_level)
    _run(lambda over: device_plugin.serve(kubelet, cdi_folder, shares, over))


@command.command(name="dra")
def dra_(
    *,
    node: str | None = None,
    shares: Shares = 16,
    memory: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME=SIZE", validator=_check_memory, negative=()),
    ] = (),
    kubelet: Folder = _KUBELET,
    cdi_folder: Folders = _SPEC_FOLDERS,
    api_server: str | None = None,
    account: Folder = ACCOUNT,
    log_level: LogLevel = "info",
) -> None:
    """Be the node's DRA driver: pods claim devices of the DeviceClass for `gpu.hesper.dev`.

    The devices are those that `hesper cdi list` shows. Wants Kubernetes 1.34 or newer
    (resource.k8s.io/v1). Runs until Ctrl-C or SIGTERM; then the scheduler is told of no devices.

    Parameters
    ----------
    node:
        Name of this node. Default: the variable NODE_NAME.
    shares:
        Claims that may have one device at a time, where its memory is not given.
    memory:
        Memory that a device's claims may have together, as in all=16G: the scheduler gives each
        what it asks for, if the cluster has DRAConsumableCapacity. Servers hold nobody to it but by
        their `--limit memory`. Can be repeated.
    kubelet:
        The kubelet's folder.
    cdi_folder:
        Where CDI files are. Can be repeated.
    api_server:
        URL of the API server. Default: as pods reach it.
    account:
        Folder with the service account's token and ca.crt.
    log_level:
        Log what is at least as important as this.
    """
    _configure_log(log_level)
    name = node or os.environ.get("NODE_NAME")
    if not name:
        fail("which node is this? Say --node NAME, or set NODE_NAME")
    url = api_server or server_url()
    options = SliceOptions(name, shares, dict(map(parse_memory, memory)))

    async def serve(over: asyncio.Event) -> None:
        server = ApiServer(url, account)
        try:
            await dra.serve(kubelet, cdi_folder, server, options, over)
        finally:
            await server.close()

    _run(serve)


def _configure_log(level: LogLevel) -> None:
    log.configure(level=level)
    log.take_over("asyncio", "aiohttp", "grpc")


def _run(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Serve until a signal ends it."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        over = asyncio.Event()

        def stop(_: int) -> None:
            loop.call_soon_threadsafe(over.set)

        with handled(STOPPING, stop):
            runner.run(serve(over))
