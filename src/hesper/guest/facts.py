"""What has to be remembered of some of a device's objects, by host handle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from hesper.kernel.objects import Object

Fact = TypeVar("Fact")

_FEW = 256


class Facts(Generic[Fact]):
    """Facts about objects that the kernel destroys without asking.

    A handle may be used again by the driver: whoever makes an object either adds a fact or
    discards the old one.  Facts about objects that are gone are swept out now and then.
    """

    def __init__(self, live: Callable[[], list[Object]]) -> None:
        """Start with none.  live: lists the objects there are."""
        self._facts: dict[int, Fact] = {}
        self._live = live
        self._sweep_at = _FEW

    def __len__(self) -> int:
        """How many facts are remembered."""
        return len(self._facts)

    def add(self, handle: int, fact: Fact) -> None:
        """Remember `fact` of a new object."""
        if len(self._facts) >= self._sweep_at:
            handles = {each.handle for each in self._live()}
            self._facts = {key: value for key, value in self._facts.items() if key in handles}
            self._sweep_at = max(_FEW, 2 * len(self._facts))
        self._facts[handle] = fact

    def discard(self, handle: int) -> None:
        """A new object has that handle, and there is nothing to remember of it."""
        self._facts.pop(handle, None)

    def get(self, handle: int) -> Fact | None:
        """What is known of an object."""
        return self._facts.get(handle)
