"""Hesper: a Venus host for virtual machines and containers.

These six names are what programs use; `docs/api.md` describes them.  They are imported when they
are asked for, so that `import hesper` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesper import protocol
    from hesper.api.diagnosis import diagnose
    from hesper.api.drivers import drivers
    from hesper.api.gpu import GpuDevice
    from hesper.api.vtest import VtestServer
    from hesper.limits import Limits

__all__ = ["GpuDevice", "Limits", "VtestServer", "diagnose", "drivers", "protocol"]

_HOMES = {
    "GpuDevice": "hesper.api.gpu",
    "Limits": "hesper.limits",
    "VtestServer": "hesper.api.vtest",
    "diagnose": "hesper.api.diagnosis",
    "drivers": "hesper.api.drivers",
}
_EXTRAS = {"GpuDevice": "display"}


if not TYPE_CHECKING:  # or any name would do

    def __getattr__(name: str) -> object:
        """Import one of `__all__`.  Raises `errors.MissingExtraError`."""
        if name == "protocol":
            return import_module("hesper.protocol")
        if name not in _HOMES:
            raise AttributeError(f"module 'hesper' has no attribute {name!r}")
        if name in _EXTRAS:
            from hesper.extras import needed

            with needed(f"hesper.{name}", _EXTRAS[name]):
                import_module(_HOMES[name])
        value: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
