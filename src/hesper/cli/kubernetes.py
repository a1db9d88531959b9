"""Be a Kubernetes node's device plugin or DRA driver, which give pods the GPU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
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
from hesper.kubernetes.slices import Capacity, SliceOptions

command = App(name="kubernetes")

_SPEC_FOLDERS = tuple(map(Path, SPEC_FOLDERS))
_KUBELET = Path("/var/lib/kubelet")

LogLevel = Literal["debug", "info", "warning", "error"]


def parse_capacity(text: str, number: Callable[[str], int], example: str) -> tuple[str, Capacity]:
    """Parse `NAME=TOTAL` or `NAME=TOTAL/EACH`, NAME being a class, or `all`.

    number: parses one of both.  Raises `ValueError`.
    """
    name, separator, numbers = text.partition("=")
    if not name or not separator:
        raise ValueError(
            f"{text!r} is no capacity of a device: it must be NAME=TOTAL or NAME=TOTAL/EACH, as in"
            f" {example}"
        )
    total, divided, each = numbers.partition("/")
    found = Capacity(number(total), number(each) if divided else None)
    if found.each is not None and found.each > found.total:
        raise ValueError(f"{text!r}: there is less in all than each is to have")
    return name if name == ALL else CLASS_PREFIX + name, found


def _parse_weight(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no weight: it must be a whole number, 1 or more")
    return int(text)


def _capacities(
    texts: Sequence[str], number: Callable[[str], int], example: str
) -> dict[str, Capacity]:
    """By the names of devices.  Raises `ValueError`."""
    found: dict[str, Capacity] = {}
    for text in texts:
        name, capacity = parse_capacity(text, number, example)
        if name in found:
            raise ValueError(f"{text!r}: that device stands there twice")
        found[name] = capacity
    return found


def _memory(texts: Sequence[str]) -> dict[str, Capacity]:
    return _capacities(texts, parse_size, "all=16G or gold=32G/8G")


def _weight(texts: Sequence[str]) -> dict[str, Capacity]:
    return _capacities(texts, _parse_weight, "all=100 or gold=100/4")


def _check_memory(_: Any, memory: Sequence[str]) -> None:
    _memory(memory)


def _check_weight(_: Any, weight: Sequence[str]) -> None:
    _weight(weight)


def _check_shares(_: Any, shares: int) -> None:
    if not 1 <= shares <= MOST_SHARES:
        raise ValueError(f"must be 1 to {MOST_SHARES}")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CapacityOptions:
    """What the claims of a device divide among them."""

    memory: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME=TOTAL/EACH", validator=_check_memory, negative=()),
    ] = ()
    """Memory that a device's claims may have together, if the cluster has DRAConsumableCapacity:
    the scheduler gives each what it asks for, as in all=16G, or what is said here that each takes,
    as in gold=32G/8G for a class of `memory=8G`, which the server holds each to. Can be
    repeated."""
    weight: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME=TOTAL/EACH", validator=_check_weight, negative=()),
    ] = ()
    """The same of weights: gold=100/4 for a class of `weight=4` lets 25 have it. Can be
    repeated."""

    @property
    def by_device(self) -> dict[str, dict[str, Capacity]]:
        """As the slices want it."""
        found: dict[str, dict[str, Capacity]] = {}
        for what, told in (("memory", _memory(self.memory)), ("weight", _weight(self.weight))):
            for device, each in told.items():
                found.setdefault(device, {})[what] = each
        return found


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
    capacity: CapacityOptions = CapacityOptions(),
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
        Claims that may have one device at a time, where neither its memory nor weight is given.
    capacity:
        What the claims of a device divide among them.
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
    options = SliceOptions(name, shares, capacity.by_device)

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
