"""What a worker of any service does before it serves: choose the host's driver and open it."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from hesper import protocol
from hesper.errors import StartError
from hesper.guest import Limits
from hesper.guest.handlers import all_handlers
from hesper.guest.instance import warm_up
from hesper.host.consequences import all_consequences
from hesper.host.drivers import Driver, choose_driver
from hesper.host.profile import Profile, load_profile
from hesper.isolation.background import in_both_threads
from hesper.isolation.recordings import RecordOptions  # noqa: TC001  msgspec asks for it
from hesper.kernel.errors import VulkanLoadError
from hesper.kernel.vulkan import Vulkan
from hesper.portable import give_memory_back, loaded_libraries
from hesper.sandbox import worker as sandbox
from hesper.sandbox.needs import needs_of, to_preload
from hesper.sandbox.worker import Wants


class DriverOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Options of a service, as far as they are about the host's side."""

    driver: str | None = None
    """What `--driver` says."""
    chosen: Driver | None = None
    """The driver that the first worker has chosen for all."""
    preload: list[str] = []
    """Libraries of its that those which follow may share."""
    profile: str | None = None
    """What `--host-profile` says."""
    emulate: bool = True
    """What `--emulate` says."""
    limits: dict[str, int] = {}
    """Fields of `guest.Limits`."""
    patience: int | None = None
    """Microseconds, see `guest.Context`."""
    window: int | None = None
    """Bytes in which a guest can map memory, see `guest.Context`."""
    cache_key: str | None = None
    """In hexadecimal, see `isolation.cache_key`."""
    recording: RecordOptions | None = None
    """How clients are recorded."""


@dataclass(frozen=True)
class OpenDriver:
    """A driver that is loaded, and what contexts on it get."""

    driver: Driver
    limits: Limits
    profile: Profile | None
    patience: int | None
    window: int | None = None
    cache_key: bytes | None = None
    recording: RecordOptions | None = None
    emulates: bool = True

    def warm_up(self) -> None:
        """Let the driver do once what takes it long the first time.

        Nothing where that would make the client's instance the second one and matter for it.
        """
        if self.driver.keeps_first_application:
            return
        warm_up(Vulkan(self.driver.library), self.driver, self.profile)
        # Compilers leave megabytes behind, which each worker that waits would have for itself.
        give_memory_back()

    def within(self, limits: dict[str, int]) -> OpenDriver:
        """The same for a context with other limits (fields of `guest.Limits`)."""
        return replace(self, limits=Limits(**limits))

    @property
    def about(self) -> dict[str, Any]:
        """What a service's `about` says of it."""
        device = self.driver.devices[0].name if self.driver.devices else ""
        return {
            "driver": self.driver.name,
            "device": device,
            "notice": self.driver.notice,
            "is_software": self.driver.is_software,
        }


def _confine(driver: Driver, limits: Limits, *, is_first: bool) -> None:
    """Give up what this driver does not need, before it is loaded.

    is_first: whether no worker has chosen a driver before.
    """
    wants = Wants(
        driver=driver.name,
        files=[driver.manifest, driver.library_path, driver.library],
        memory=limits.most_memory,
        threads=limits.threads,
        descriptors=limits.descriptors + limits.rings,
        is_first=is_first,
    )
    sandbox.confine(wants, everywhere=in_both_threads)


def preload() -> None:
    """Import and read all that a worker needs before there is a driver."""
    all_handlers()
    all_consequences()
    protocol.summary()
    protocol.extensions()


def open_driver(options: DriverOptions) -> OpenDriver:
    """Choose and open the driver, and load what every context needs.

    Writes the choice into `options`, for the workers that follow.  Raises `StartError`.
    """
    try:
        limits = msgspec.convert(options.limits, Limits)
        profile = load_profile(options.profile) if options.profile else None
        driver = options.chosen or choose_driver(options.driver)
        os.environ.update(driver.environment)
        _confine(driver, limits, is_first=options.chosen is None)
        Vulkan(driver.library)
    except (VulkanLoadError, msgspec.ValidationError) as error:
        raise StartError(str(error)) from None
    # The loader would open and close it for each instance; this one keeps it open.
    try:
        ctypes.CDLL(driver.library_path)
    except OSError as error:
        raise StartError(f"driver {driver.name} ({driver.manifest}): {error}") from None
    preload()  # now rather than when a client waits
    if options.chosen is None:
        options.preload = to_preload(loaded_libraries(), needs_of(driver.name))
    options.chosen = driver
    key = bytes.fromhex(options.cache_key) if options.cache_key else None
    return OpenDriver(
        driver,
        limits,
        profile,
        options.patience,
        options.window,
        key,
        options.recording,
        options.emulate,
    )
