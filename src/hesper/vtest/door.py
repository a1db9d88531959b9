"""How a worker serves a vtest client: opens the host's driver ahead, then runs a `Session`."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from hesper.guest import Context, Limits, ResourceError, capset
from hesper.guest.handlers import all_handlers
from hesper.host.drivers import Driver, NoDriverError, choose_driver
from hesper.host.profile import Profile, ProfileError, load_profile
from hesper.isolation.door import StartError
from hesper.kernel.engine import ProtocolError, Vulkan, VulkanLoadError
from hesper.log import get_logger
from hesper.vtest.session import Session

_log = get_logger(__name__)


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What a worker has to know before it serves."""

    driver: str | None = None
    """What `--driver` says."""
    chosen: Driver | None = None
    """The driver that the first worker has chosen for all."""
    profile: str | None = None
    """What `--host-profile` says."""
    limits: dict[str, int] = {}
    """Fields of `guest.Limits`."""
    handshake_timeout: float | None = None
    """Seconds."""


def prepare(options: dict[str, Any]) -> VtestDoor:
    """Choose and open the driver, and load everything a client needs.

    Raises `StartError`.
    """
    try:
        wanted = msgspec.convert(options, Options)
        limits = msgspec.convert(wanted.limits, Limits)
        profile = load_profile(wanted.profile) if wanted.profile else None
        driver = wanted.chosen or choose_driver(wanted.driver)
        _open(driver)
        all_handlers()  # imports them now rather than when a client waits
    except (NoDriverError, ProfileError, VulkanLoadError, msgspec.ValidationError) as error:
        raise StartError(str(error)) from None
    wanted.chosen = driver
    return VtestDoor(wanted, driver, limits, profile)


def _open(driver: Driver) -> None:
    """Load the loader and the driver, so that a client's first call does not wait for the disk."""
    os.environ.update(driver.environment)
    Vulkan(driver.library)
    # The loader would open and close it for each instance; this one keeps it open.
    try:
        ctypes.CDLL(driver.library_path)
    except OSError as error:
        raise StartError(f"driver {driver.name} ({driver.manifest}): {error}") from None


class VtestDoor:
    """Serves one vtest client with one guest context."""

    refusals: tuple[type[Exception], ...] = (ProtocolError, ResourceError)

    def __init__(
        self, options: Options, driver: Driver, limits: Limits, profile: Profile | None
    ) -> None:
        """Be ready to serve with `driver`."""
        self.options: dict[str, Any] = msgspec.to_builtins(options)
        device = driver.devices[0].name if driver.devices else ""
        self.about: dict[str, Any] = {
            "driver": driver.name,
            "device": device,
            "notice": driver.notice,
        }
        self.capset = capset()
        self.handshake_timeout = options.handshake_timeout
        self._driver = driver
        self._limits = limits
        self._profile = profile
        self._session: Session | None = None
        self._stopped = False
        self._named: Callable[[str], None] = lambda _: None

    def serve(self, sock: socket.socket, named: Callable[[str], None]) -> None:
        """Serve the client at `sock`, see `isolation.door.Door`."""
        self._named = named
        self._session = Session(sock, self)
        if self._stopped:
            self._session.stop()
        self._session.run()

    def stop(self) -> None:
        """Make `serve` return soon."""
        self._stopped = True
        if self._session is not None:
            self._session.stop()

    def create_context(self, name: str, on_fatal: Callable[[str], None]) -> Context:
        """Make the client's context."""
        return Context(
            self._driver,
            name=name,
            on_fatal=on_fatal,
            limits=self._limits,
            profile=self._profile,
        )

    def named(self, name: str) -> None:
        """Tell the supervisor what the client calls itself."""
        self._named(name)

    def warn(self, text: str) -> None:
        """Log one line about the client."""
        _log.warning(text)
