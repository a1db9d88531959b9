"""A guest is recorded whose submissions wait for its share of the GPU."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from recorded_guest import SIZE, Copier, read_file, record_to, replay

from hesper.isolation.sharer import HELD, HOLD, LOOKS, TOLD
from hesper.portable import SharedMemory, WakePipe, page_size
from hesper.trace.decoded import decode
from hesper.trace.records import Kind, Record, memory_of

SECONDS = 60.0


def hold(copier: Copier, words: memoryview, data: bytes) -> int:
    """Have a copy wait, and go on; for how many nanoseconds it was seen to wait."""
    copied: list[bytes] = []
    words[TOLD] = HOLD
    thread = threading.Thread(target=lambda: copied.append(copier.copy(data)))
    thread.start()
    deadline = time.monotonic() + SECONDS
    while not words[HELD] and time.monotonic() < deadline:
        time.sleep(0.001)
    since = time.monotonic_ns()
    assert words[HELD] == 1
    held = 0
    for _ in range(10):
        # The supervisor looks, and lets it wait.
        words[LOOKS] += 1
        time.sleep(0.001)
        now = time.monotonic_ns()
        # Nobody waits for a supervisor that does not look for a second.
        if words[HELD]:
            held = now - since
    words[TOLD] = 0
    thread.join(SECONDS)
    assert copied == [data]
    return held


def submitted(records: list[Record]) -> list[tuple[int, bytes, int]]:
    """Of each submission: when it began, what was noted of memory since the last, how long."""
    found = []
    noted = b""
    for record in records:
        if record.kind == Kind.MEMORY:
            noted += memory_of(record)[2]
        elif record.kind == Kind.COMMAND:
            command = decode(0, record)
            if command.name == "vkQueueSubmit":
                found.append((command.time, noted, command.duration))
                noted = b""
    return found


def test_what_is_held_is_recorded_when_it_has_run(tmp_path: Path) -> None:
    path = tmp_path / "held.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    wake = WakePipe()
    with SharedMemory.create(page_size(), "share") as page:
        words = page.view.cast("Q")
        shares = copier.guest.context.engine.shares
        shares.join(page.address, wake.write_fd)
        held = [hold(copier, words, bytes([seed]) * SIZE) for seed in (1, 2)]
        copier.close()
        shares.leave()
        words.release()
    wake.close()
    recorder.close()
    found = submitted(read_file(path)[1])
    assert [duration > least for (_, _, duration), least in zip(found, held, strict=True)] == [
        True,
        True,
    ]
    assert [bytes([seed]) * SIZE in noted for seed, (_, noted, _) in enumerate(found, 1)] == [
        True,
        True,
    ]
    outcome = replay(path, verify=True)
    assert (outcome.fatal, outcome.submissions) == ("", 2)
    assert (outcome.pages_other, outcome.results_other) == (0, 0)
