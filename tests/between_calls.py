"""Has something changed between each two calls of a piece of work: races, made to be lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

MOST_CALLS = 5000


def before_each_call(
    work: Callable[[], object], change: Callable[[], None], *errors: type[Exception]
) -> Iterator[object]:
    """Do the work again and again, with one change each time; what it returned, or which error.

    change: comes before the work's first call of what is written in C, the next time before its
    second, and so on, until it makes no more.  errors: it may raise.
    """
    for wanted in range(MOST_CALLS):
        seen = 0

        def called(_frame: FrameType, event: str, _what: Any, wanted: int = wanted) -> None:
            nonlocal seen
            if event == "c_call":
                seen += 1
                if seen == wanted + 1:
                    sys.setprofile(None)
                    change()

        outcome: object
        sys.setprofile(called)
        try:
            outcome = work()
        except errors as error:
            outcome = error
        finally:
            sys.setprofile(None)
        yield outcome
        if seen <= wanted:
            return
    raise AssertionError("the work has no end")


class Swapped:
    """Something in whose place comes a link to something else."""

    def __init__(self, path: Path, target: Path) -> None:
        """What is at `path` lies beside it meanwhile."""
        self._path = path
        self._target = target
        self._away = path.with_name(f"{path.name}.away")

    def swap(self) -> None:
        """Put the link there, if there is anything."""
        if self._path.exists():
            self._path.rename(self._away)
            self._path.symlink_to(self._target)

    def put_back(self) -> None:
        """Take it away."""
        if self._path.is_symlink():
            self._path.unlink()
            self._away.rename(self._path)
