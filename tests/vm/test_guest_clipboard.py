"""The clipboard program of Wayland guests, with Hesper's end of it; wl-clipboard is played."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serving import run, until

from hesper.display.clipboard import Clipboard
from hesper.display.scanout import Display
from hesper.vm import agent, guest_clipboard

WL_PASTE = """#!/bin/sh
# Runs a command whenever something is copied, or says what has been.
cd "$(dirname "$0")"
[ "$1" = --watch ] || exec cat text
shift
while read -r CLIPBOARD_STATE; do export CLIPBOARD_STATE; "$@"; done < news
"""
WL_COPY = """#!/bin/sh
cd "$(dirname "$0")"
cat > new && mv new text
echo data > news
"""


class Desk:
    """What the guest has copied, and what a viewer hears of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shared = Clipboard()
        self.shared.join(self)
        self.heard: list[str] = []
        os.mkfifo(folder / "news")
        # Held open, it does not end between two that write.
        self._news = os.open(folder / "news", os.O_RDWR)
        for name, text in (("wl-paste", WL_PASTE), ("wl-copy", WL_COPY)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def take_text(self, text: str) -> None:
        self.heard.append(text)

    def copy(self, text: bytes | None, state: str = "data") -> None:
        """A program of the guest's copies text, or what is none."""
        (self.folder / "text").unlink(missing_ok=True)
        if text is not None:
            (self.folder / "text").write_bytes(text)
        os.write(self._news, f"{state}\n".encode())

    def end_session(self) -> None:
        """There is nothing to watch any more."""
        os.write(self._news, b"end")
        os.close(self._news)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose programs are found."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Desk(tmp_path)


@asynccontextmanager
async def sharing(desk: Desk) -> AsyncIterator[asyncio.Task[None]]:
    """Both ends, at work; gives the guest's."""
    ours, guests = socket.socketpair()
    streams = [await asyncio.open_connection(sock=each) for each in (ours, guests)]
    host = agent.Agent(*streams[0], desk.shared, Display(1))
    guest = guest_clipboard.Agent(*streams[1])
    tasks = [asyncio.create_task(each.run()) for each in (guest, host)]
    try:
        await until(lambda: desk.shared.has_guest)
        yield tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, writer in streams:
            writer.close()


def test_text_is_shared_both_ways(desk: Desk) -> None:
    async def scenario() -> None:
        async with sharing(desk):
            desk.copy("gr\xfc\xdfe".encode())
            await until(lambda: desk.heard == ["gr\xfc\xdfe"])
            desk.shared.copy_at_viewer("and back" * 1000)
            await until(lambda: (desk.folder / "text").read_bytes() == b"and back" * 1000)
            # What came from the host is not told to it again.
            desk.copy(b"the last")
            await until(lambda: desk.heard[-1] == "the last")
            assert desk.heard == ["gr\xfc\xdfe", "the last"]

    run(scenario())


@pytest.mark.parametrize(
    ("text", "state"), [(None, "data"), (b"secret", "sensitive"), (b"x" * (1 << 21), "data")]
)
def test_what_is_not_to_be_shared_takes_away_what_was(
    desk: Desk, text: bytes | None, state: str
) -> None:
    async def scenario() -> None:
        async with sharing(desk):
            desk.copy(b"plain")
            await until(lambda: desk.shared.in_guest == "plain")
            desk.copy(text, state)
            await until(lambda: desk.shared.in_guest is None)
        assert desk.heard == ["plain"]

    run(scenario())


def test_it_ends_with_the_session_and_not_with_the_host(desk: Desk) -> None:
    async def scenario() -> None:
        async with sharing(desk) as guest:
            # Else nobody has begun to look yet, and it would wait for the next.
            desk.copy(b"text")
            await until(lambda: desk.heard == ["text"])
            desk.end_session()
            with pytest.raises(guest_clipboard.SessionEndedError):
                await guest

    run(scenario())
