"""What the options of all servers share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from hesper.api.checks import check_kind, check_number
from hesper.errors import OptionError
from hesper.isolation.cache_key import cache_key
from hesper.isolation.shader_caches import SCOPES, Scope
from hesper.limits import Limits
from hesper.sandbox import MODES, Mode

if TYPE_CHECKING:
    from hesper.isolation.recordings import RecordOptions

MOST_PATIENCE = 100_000
"""Microseconds."""


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """What of the host guests get.  Raises `errors.OptionError` for what cannot be."""

    driver: str | None = None
    """The host's Vulkan driver: its name (see `drivers`), what its device calls itself, or the path
    of its manifest; with `#` and a number that device of it alone, in its own order from 0.  None:
    the one that can do most for guests."""
    host_profile: str | os.PathLike[str] | None = None
    """Show guests no more than another driver would offer: the path of a profile, `moltenvk` or
    `kosmickrisp`."""
    emulate: bool = True
    """Supply features that the driver lacks, where that can be done soundly: null descriptors."""
    limits: Limits = field(default_factory=Limits)
    """What one client, or one program in a virtual machine, may use at most."""
    patience: int | None = None
    """Microseconds for which threads stay awake for what may come next, 0 to 100000: fewer delays,
    more processor time.  None: 500 with a GPU and four processors or more, else 0."""

    sandbox: Mode = "on"
    """How the processes are confined that run guests' commands: `on`; `report`, which logs what
    would be refused, for a driver that needs more; `off`."""

    shader_cache: Scope = "client"
    """Who shares the compiled shaders that drivers keep, which a guest that has taken over its
    worker can forge: `client`, programs of one user, one container, one class or one virtual
    machine; `server`, all clients of this server; `off`, nobody, as none are kept."""

    record: RecordOptions | None = None
    """Record every client, or every program in a virtual machine: where, and how much.  None: not
    at all.  Wants `hesper[trace]`."""

    def __post_init__(self) -> None:
        """Check them."""
        name = "must be a driver's name or the path of its manifest; None takes the best one"
        if self.driver is not None:
            check_kind("driver", self.driver, str, name)
        if self.host_profile is not None:
            must = "must be the path of a profile, 'moltenvk' or 'kosmickrisp'"
            check_kind("host_profile", self.host_profile, (str, os.PathLike), must)
        check_kind("emulate", self.emulate, bool, "must be True or False")
        check_kind("limits", self.limits, Limits, "must be hesper.Limits(...)")
        if self.sandbox not in MODES:
            raise OptionError("sandbox", self.sandbox, f"must be one of {', '.join(MODES)}")
        if self.shader_cache not in SCOPES:
            raise OptionError(
                "shader_cache", self.shader_cache, f"must be one of {', '.join(SCOPES)}"
            )
        if self.patience is not None:
            default = "left out, it is what suits this machine"
            check_number("patience", self.patience, 0, MOST_PATIENCE, default)


def for_workers(options: HostOptions) -> dict[str, Any]:
    """What workers are told of it (`isolation.driver.DriverOptions`)."""
    profile = options.host_profile
    return {
        "driver": options.driver,
        "profile": None if profile is None else os.fspath(profile),
        "emulate": options.emulate,
        "limits": msgspec.to_builtins(options.limits),
        "patience": options.patience,
        "cache_key": cache_key().hex(),
        "recording": None if options.record is None else msgspec.to_builtins(options.record),
    }
