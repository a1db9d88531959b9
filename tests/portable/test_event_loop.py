"""The event loop: what is called after some time."""

from __future__ import annotations

from hesper.event_loop import EventLoop


def test_what_is_due_is_called_once_and_in_order() -> None:
    loop = EventLoop()
    called: list[str] = []
    loop.call_after(0.02, lambda: called.append("last"))
    loop.call_after(0.0, lambda: called.append("first"))
    loop.call_after(0.01, lambda: called.append("between"))
    while len(called) < 3:
        # Nothing else wakes it up.
        loop.run_once()
    loop.run_once(0)
    assert called == ["first", "between", "last"]
    loop.close()


def test_what_is_not_due_keeps_nobody_waiting() -> None:
    loop = EventLoop()
    called: list[str] = []
    loop.call_after(3600.0, lambda: called.append("late"))
    loop.call(lambda: called.append("now"))
    loop.run_once()
    loop.run_once(0)
    assert called == ["now"]
    loop.close()
