"""An asyncio loop on which nothing waits for real: where all wait, time passes at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Lets time pass instead of waiting."""

    passed = 0.0
    """Seconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("all wait for ever")
        if not ready and timeout is not None and timeout > 0:
            self.passed += timeout
        return ready


class QuickLoop(asyncio.SelectorEventLoop):
    """For code that uses no threads but by `run_in_executor`."""

    def __init__(self) -> None:
        """Begin at 0 s."""
        self._clock = _Selector()
        super().__init__(self._clock)
        self.failures: list[BaseException] = []
        """What nobody has caught."""
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """See `asyncio.AbstractEventLoop.time`."""
        return self._clock.passed

    def run_in_executor(  # type: ignore[override]
        self, _executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Do it now, on this thread; whoever waits hears of it later."""
        future: asyncio.Future[T] = self.create_future()
        try:
            self.call_soon(_set, future, future.set_result, func(*args))
        except Exception as error:
            self.call_soon(_set, future, future.set_exception, error)
        return future

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.failures.append(error)

    def raise_failures(self) -> None:
        """Raise what nobody has caught."""
        if self.failures:
            raise self.failures.pop(0)


def _set(future: asyncio.Future[Any], way: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        way(value)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end.  Raises what nobody has caught, too."""
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        loop = runner.get_loop()
        runner.run(main())
        assert isinstance(loop, QuickLoop)
        loop.raise_failures()
