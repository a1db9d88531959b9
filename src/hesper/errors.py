"""What Hesper raises at whoever uses it, in one hierarchy.

Each text says what is wrong, where, and what to do about it; the command line prints it as it is.
Errors that only one room has derive from `HesperError` there: those of QEMU and of disk images in
`hesper.vm`, of pictures and windows in `hesper.display`, of measurements in `hesper.bench`,
of containers in `hesper.containers`.
"""

from __future__ import annotations


class HesperError(Exception):
    """Something that was asked of Hesper cannot be; the text says what, where and what to do."""


class OptionError(HesperError, ValueError):
    """An option that cannot be."""

    def __init__(self, option: str, value: object, must: str) -> None:
        """Remember the `option`, by its name in the API, its `value`, and what it `must` be."""
        super().__init__(f"{option}={value!r}: {must}")
        self.option = option
        self.value = value
        self.must = must


class StateError(HesperError):
    """A server was asked for what it cannot do now, as starting while it runs."""


class ListenError(HesperError):
    """There can be no socket where clients were to connect."""


class StartError(HesperError):
    """A server cannot serve."""


class StoppedError(StartError):
    """A server was stopped before it was ready."""


class NoDriverError(StartError):
    """No Vulkan driver of this host can be used; the text says what was tried."""


class ProfileError(StartError):
    """A host profile that cannot be used; the text says which file, and where in it."""


class NoVenusError(HesperError):
    """There is no Mesa Venus driver on this machine, which programs on it need."""


class MissingExtraError(HesperError, ImportError):
    """A part of Hesper wants packages that a plain installation leaves out."""

    def __init__(self, what: str, module: str, extra: str) -> None:
        """What was asked for, the `module` that is missing, and the `extra` that brings it."""
        super().__init__(
            f"{what} needs {module}, which is not installed: pip install 'hesper[{extra}]'",
            name=module,
        )
        self.extra = extra


def first_words(said: str, status: int) -> str:
    """Why a program has failed, by what it `said` first: a library that it lacks stands there.

    status: how it ended, which is told of one that said nothing.
    """
    lines = said.strip().splitlines()
    return lines[0] if lines else f"it ended with {status} and said nothing"


_BY_NAME = {kind.__name__: kind for kind in (StartError, NoDriverError, ProfileError)}


def start_error(kind: str, reason: str) -> StartError:
    """The error that a worker has reported, by the name of its class."""
    return _BY_NAME.get(kind, StartError)(reason)
