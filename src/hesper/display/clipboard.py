"""Text that is copied on one side, for the other to paste: viewers here, the guest there.

It is kept as Python's text whose lines end in a line feed; whoever speaks a protocol knows what
that protocol makes of it.  All of this is used on one event loop.
"""

from __future__ import annotations

from typing import Protocol

from hesper.log import get_logger

MAX_TEXT = 1 << 20
"""Bytes, as UTF-8; longer text is not passed on."""
_UNWANTED = dict.fromkeys(
    code for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in {0x09, 0x0A}
)
"""What shows nothing and what terminals obey: pasting it is never what somebody meant."""

_log = get_logger(__name__)


def clean(text: str) -> str:
    """Return `text` without control characters; its lines end in a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_UNWANTED)


class Peer(Protocol):
    """Whoever can take text: a viewer, or the guest."""

    def take_text(self, text: str) -> None:
        """Note what the other side has copied; must not wait."""


class Clipboard:
    """What was copied last on either side."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.is_on = True
        """Whether viewers are asked for what they copy, and told of what the guest does."""
        self.in_guest: str | None = None
        """What the guest has copied; None once it has let go of that."""
        self.at_viewer: str | None = None
        """What a viewer has copied, if that was later."""
        self._viewers: set[Peer] = set()
        self._guest: Peer | None = None

    def join(self, viewer: Peer) -> None:
        """Tell `viewer` of what the guest copies."""
        self._viewers.add(viewer)

    def leave(self, viewer: Peer) -> None:
        """Tell `viewer` nothing more."""
        self._viewers.discard(viewer)

    @property
    def has_guest(self) -> bool:
        """Whether what viewers copy reaches a guest."""
        return self._guest is not None

    def connect_guest(self, guest: Peer | None) -> None:
        """Pass on what viewers copy to `guest`, what they have copied already among it."""
        self._guest = guest
        if guest is None:
            self.in_guest = None
        elif self.at_viewer is not None:
            guest.take_text(self.at_viewer)

    def copy_in_guest(self, text: str | None) -> None:
        """Note that the guest has copied `text`, or let go of what it had."""
        text = _checked(text, "the guest")
        self.in_guest = text
        if text is not None:
            self.at_viewer = None
            for viewer in self._viewers:
                viewer.take_text(text)

    def copy_at_viewer(self, text: str) -> None:
        """Note that a viewer has copied `text`."""
        checked = _checked(text, "a viewer")
        if checked is None:
            return
        self.at_viewer = checked
        self.in_guest = None
        if self._guest is not None:
            self._guest.take_text(checked)


def _checked(text: str | None, whose: str) -> str | None:
    """Return clean text; None for what is too long."""
    if text is None:
        return None
    text = clean(text)
    if len(text.encode("utf-8", "replace")) > MAX_TEXT:
        _log.of(whose).info("text is not passed on: it is too long", copied_by=whose, most=MAX_TEXT)
        return None
    return text
