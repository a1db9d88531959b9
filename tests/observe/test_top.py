"""`hesper top`'s screen, and what it is made of."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import DataTable, Static
from watched_server import FIGURES, Watching

from hesper.observe.asking import WatchError
from hesper.observe.look import Look, as_json
from hesper.observe.rates import Rates, waits_for
from hesper.observe.top import AskEnd, TopApp
from hesper.observe.wire import Client, Report, Screen
from hesper.observe.words import age, amount, plain, rate, user

HOSTILE = "\x1b]0;title\x07[bold red]name[/][@click=app.quit]x[/]\u202e\n\t"


def report(time: float, *clients: Client, frames: int = 0) -> Report:
    return Report(
        "vm", ["/run/vtest"], "lvp", "GPU", 5, time, [*clients], [Screen(1, frames, 8, 6)]
    )


def test_rates_are_between_two_reports() -> None:
    rates = Rates()
    client = Client.of(FIGURES)
    (first,), _ = rates.rows(report(10.0, client))
    assert (first.commands, first.frames, first.busy) == (0, 0, 0)
    later = Client.of(
        FIGURES._replace(commands=3000, frames=130, submissions=50, busy_ns=1_500_000_000)
    )
    new = Client.of(FIGURES._replace(context=4, commands=1 << 60))
    (row, other), (screen,) = rates.rows(report(12.0, later, new, frames=120))
    assert (row.commands, row.frames, row.submissions, row.busy) == (1000, 60, 5, 0.5)
    assert row.each == 0.1
    assert first.each == 0
    assert other.commands == 0, "what it did before it was seen is no rate"
    assert screen.frames == 60
    # The same moment, or an earlier one, is no reason to fail.
    (row,), _ = rates.rows(report(12.0, client))
    assert row.commands == 0


@pytest.mark.parametrize(
    ("doing", "said"),
    [
        ([], "its program"),
        ([("asleep", ""), ("wait", "")], "its program"),
        ([("asleep", ""), ("driver", "vkWaitForFences")], "the GPU (vkWaitForFences)"),
        ([("driver", "vkQueueSubmit"), ("wait", "")], "the driver (vkQueueSubmit)"),
        ([("driver", "vkDraw"), ("driver", "vkWaitSemaphores")], "the GPU (vkWaitSemaphores)"),
        ([("handler", "vkAllocateMemory")], "Hesper (vkAllocateMemory)"),
        ([("handler", "vkWaitRingSeqnoMESA")], "its own order (vkWaitRingSeqnoMESA)"),
        ([("decode", "")], "Hesper"),
    ],
)  # fmt: skip
def test_what_a_program_waits_for(doing: list[tuple[str, str]], said: str) -> None:
    assert waits_for(doing) == said


def test_words() -> None:
    assert [amount(size) for size in (0, 1023, 1024, 1 << 20, 300 << 20, 1 << 60)] == [
        "0B", "1023B", "1.0K", "1.0M", "300M", "1048576T",
    ]  # fmt: skip
    assert [rate(number) for number in (0, 7.54, 99.9, 312.4, 48_100, 1.2e6)] == [
        "0", "7.5", "99.9", "312", "48.1k", "1.2M",
    ]  # fmt: skip
    assert [age(seconds) for seconds in (0.5, 59, 185, 7800, 90_000)] == [
        "0 s", "59 s", "3 min 5 s", "2 h 10 min", "1 d 1 h",
    ]  # fmt: skip
    assert plain(HOSTILE).isprintable()
    assert len(plain("x" * 1000)) == 100


def test_scripts_get_numbers(watching: Watching) -> None:
    (server,) = as_json(Look(Path(watching.place)).see_twice(0.01))
    (client,) = server["clients"]
    assert client["id"] == 3
    assert client["queue_busy_seconds"] == 0.5
    assert client["memory_used"] == 6 << 20
    assert client["held"] == {"devices": {"number": 1, "limit": 16}}
    assert client["waits_for"] == "the GPU (vkWaitForFences)"
    assert watching.server.watched[-1] > 1.0, "queues are timed"


class Shown:
    """The app without a terminal, and what it shows."""

    def __init__(self, app: TopApp) -> None:
        self.app = app

    def table(self) -> DataTable[Any]:
        found: DataTable[Any] = self.app.query_one("#programs", DataTable)
        return found

    def cells(self) -> list[list[str]]:
        table = self.table()
        return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]

    def text(self, which: str) -> str:
        return str(self.app.query_one(which, Static).render())


def run(app: TopApp, check: Callable[[Shown, Any], Any]) -> str | None:
    """Run `check` once something is shown."""

    async def go() -> None:
        async with app.run_test(size=(140, 30)) as pilot:
            shown = Shown(app)
            await seen(pilot, lambda: shown.text("#servers") or app.return_value)
            await check(shown, pilot)

    asyncio.run(go())
    return app.return_value


async def seen(pilot: Any, condition: Callable[[], Any]) -> None:
    """Wait for something to be shown."""
    for _ in range(500):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError("it is not shown")


def app_for(watching: Watching, end: Callable[[str, int], str] | None = None) -> TopApp:
    return TopApp(Look(Path(watching.place)), 0.05, end or (lambda *_: "ended"))


def test_programs_are_shown(watching: Watching) -> None:
    async def check(shown: Shown, pilot: Any) -> None:
        await seen(pilot, shown.cells)
        assert shown.cells() == [
            ["3", "1234", "vkcube", user(FIGURES.user), "0%", "0", "0", "0", "5.0M", "1%",
             "1 min 15 s", "the GPU (vkWaitForFences)"]
        ]  # fmt: skip
        assert "llvmpipe (lvp): 1 program," in shown.text("#servers")
        more = shown.text("#more")
        assert "recorded 1.0M" in more
        assert "ring 1: driver vkWaitForFences" in more

    assert run(app_for(watching), check) is None


def test_what_programs_call_themselves_is_only_shown(watching: Watching) -> None:
    watching.server.figures = [FIGURES._replace(name=HOSTILE)]

    async def check(shown: Shown, pilot: Any) -> None:
        await seen(pilot, shown.cells)
        name = shown.cells()[0][2]
        assert name == plain(HOSTILE, 40)
        assert "[bold red]" in name
        assert plain(HOSTILE) in shown.text("#more")
        svg = shown.app.export_screenshot()
        assert "\x1b" not in svg
        assert "@click" not in re.sub(r"<text[^>]*>[^<]*</text>", "", svg)
        await pilot.click("#programs", offset=(30, 1))
        assert shown.app.is_running

    assert run(app_for(watching), check) is None


def test_the_cursor_stays_with_its_program(watching: Watching) -> None:
    def of(number: int, memory: int) -> Any:
        return FIGURES._replace(context=number, name=f"program {number}", memory=memory)

    watching.server.figures = [of(1, 10), of(2, 20), of(3, 30)]

    async def check(shown: Shown, pilot: Any) -> None:
        await pilot.press("s", "s")  # by memory
        await seen(pilot, lambda: [row[0] for row in shown.cells()] == ["3", "2", "1"])
        await pilot.press("down")
        await seen(pilot, lambda: "program 2" in shown.text("#more"))
        watching.server.figures = [of(1, 10), of(2, 40), of(3, 30)]
        await seen(pilot, lambda: [row[0] for row in shown.cells()] == ["2", "3", "1"])
        assert "program 2" in shown.text("#more")
        watching.server.figures = []
        await seen(pilot, lambda: "No program" in shown.text("#more"))

    assert run(app_for(watching), check) is None


def test_a_program_is_ended_once_that_is_confirmed(watching: Watching) -> None:
    ended: list[tuple[str, int]] = []

    def end(place: str, context: int) -> str:
        ended.append((place, context))
        return "ended"

    async def check(shown: Shown, pilot: Any) -> None:
        await seen(pilot, shown.cells)
        for answer in ("n", "escape", "y"):
            assert ended == []
            await pilot.press("k")
            await seen(pilot, lambda: isinstance(shown.app.screen, AskEnd))
            # It goes on looking meanwhile.
            looks = len(watching.server.watched)
            await seen(pilot, lambda: len(watching.server.watched) > looks + 4)  # noqa: B023
            await pilot.press(answer)
            await seen(pilot, lambda: not isinstance(shown.app.screen, AskEnd))
        await seen(pilot, lambda: ended)

    assert run(app_for(watching, end), check) is None
    assert ended == [(watching.place, 3)]


def test_it_ends_with_the_last_server(watching: Watching) -> None:
    async def check(shown: Shown, pilot: Any) -> None:
        await seen(pilot, shown.cells)
        watching.status.__exit__(None, None, None)
        await seen(pilot, lambda: shown.app.return_value)

    said = run(app_for(watching), check)
    assert said is not None
    assert said.startswith(f"no server of yours listens on {watching.place}")


def test_there_may_be_no_server(runtime: Path) -> None:
    with pytest.raises(WatchError, match=str(runtime)):
        Look(runtime / "vtest").see()
