"""What is wanted of a replay, and what comes of it."""

from __future__ import annotations

import msgspec

from hesper.errors import HesperError
from hesper.trace.picture import Picture  # noqa: TC001  msgspec reads it

MOST_TOLD = 20
MOST_LACKING = 1024
"""Names of what a driver lacks."""


class ReplayError(HesperError):
    """A recording that cannot be replayed."""


class ReplayOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How to replay."""

    real: bool = False
    """At the speed of the recording; else as fast as it goes."""
    until: int | None = None
    """Number of the command before which to stop."""
    verify: bool = False
    """Compare what comes out."""
    picture: bool = False
    """Keep the last picture."""


class Outcome(msgspec.Struct, kw_only=True):
    """What has come of it."""

    commands: int = 0
    submissions: int = 0
    left_out: int = 0
    """Commands of the transport, and those that had failed then."""
    seconds: float = 0.0
    pages_confirmed: int = 0
    """Times that a page was noted that the device had written here to the same bytes."""
    pages_replaced: int = 0
    """Times that it had written something else here, and the guest's device was through: the guest
    had written there, or that device something else."""
    pages_same: int = 0
    """Pages that held in the end what they held then."""
    pages_other: int = 0
    pages_unknown: int = 0
    """Pages that were noted while the device was at work, and may be what they were."""
    results_same: int = 0
    results_other: int = 0
    answers_other: int = 0
    """Questions about what the driver offers that have another VkResult here."""
    lacks: list[str] = []
    """Extensions and features that the device is made without, because there are none here."""
    misplaced: dict[str, int] = {}
    """Descriptors left out, at places in buffers that this driver does not allow, by its limit."""
    without: int = 0
    """Commands left out that name what this driver has not made."""
    stuck: int = 0
    """Times that work was not waited for any longer."""
    translated: dict[str, int] = {}
    differences: list[str] = []
    """The first of them."""
    picture: Picture | None = None
    picture_error: float | None = None
    """The mean squared error of its colours, 0 to 255²; None: there is nothing to compare."""
    fatal: str = ""
    """Why the context has ended, and with it the replay."""

    def lack(self, names: list[str]) -> None:
        """Take note of what a device is made without, but for very much of it."""
        self.lacks += names[: MOST_LACKING - len(self.lacks)]

    def differ(self, what: str) -> None:
        """Take note of a difference, unless there are many."""
        if len(self.differences) < MOST_TOLD:
            self.differences.append(what)
