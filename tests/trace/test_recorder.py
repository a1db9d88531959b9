"""What a context is told comes into the file, and out of it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from guest_client import DEVICE
from recorded_guest import ALWAYS, SIZE, Copier, read_file, record_to, replay
from recordings import ABOUT_NOTHING, file_of

from hesper.isolation.recordings import RecordOptions
from hesper.kernel.tape import ROOM
from hesper.trace.chunks import RECORDS, RecordingError, pack
from hesper.trace.decoded import decode
from hesper.trace.outcome import ReplayError
from hesper.trace.recorder import Recorder
from hesper.trace.records import EARLIER, Kind, command_of, memory_of, put

HERE = Path(__file__).parent
SECONDS = 60.0


def pattern(seed: int, size: int = SIZE) -> bytes:
    """Bytes that no other seed has."""
    return bytes((seed + i * 7) & 0xFF for i in range(256)) * (size // 256)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A recording of three copies."""
    path = tmp_path / "copies.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    for seed in range(3):
        assert copier.copy(pattern(seed)) == pattern(seed)
    copier.close()
    recorder.close()
    return path


def test_commands_are_noted_as_they_were_decoded(recorded: Path) -> None:
    reader, records = read_file(recorded)
    found = [decode(i, r) for i, r in enumerate(r for r in records if r.kind == Kind.COMMAND)]
    names = [each.name for each in found]
    assert names[0] == "vkSetReplyCommandStreamMESA"
    assert names.count("vkQueueSubmit") == 3
    assert names.index("vkCreateInstance") < names.index("vkCreateDevice")
    assert all(each.parameters is not None and not each.problem for each in found)
    created = next(each for each in found if each.name == "vkCreateDevice")
    assert created.result == 0
    assert created.duration > 0
    assert [each.time for each in found] == sorted(each.time for each in found)
    assert records[-1].kind == Kind.END
    assert records[-1].body == b""
    assert reader.cut < 0


def test_memory_is_noted_before_the_submission_that_reads_it(recorded: Path) -> None:
    _, records = read_file(recorded)
    blobs = [int.from_bytes(r.body[:4], "little") for r in records if r.kind == Kind.BLOB]
    source = blobs[1]  # the first holds replies
    written = b""
    seen = 0
    for record in records:
        if record.kind == Kind.MEMORY and memory_of(record)[0] == source:
            assert memory_of(record)[1] == len(written) % SIZE
            written += memory_of(record)[2]
        elif record.kind == Kind.COMMAND:
            name = decode(0, record).name
            if name == "vkQueueSubmit":
                assert written == pattern(seen)
                written = b""
                seen += 1
    assert seen == 3


def test_what_does_not_change_is_noted_once(tmp_path: Path) -> None:
    path = tmp_path / "same.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    for _ in range(4):
        copier.copy(pattern(5))
    copier.close()
    recorder.close()
    _, records = read_file(path)
    noted = sum(len(memory_of(r)[2]) for r in records if r.kind in (Kind.MEMORY, Kind.LAST))
    assert noted == 2 * SIZE


def test_a_client_goes_on_where_its_recorder_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it fails of: nobody makes room for what is noted any more."""
    recorder = record_to(tmp_path / "file")

    def fail(_data: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(recorder, "put", fail)
    text = "x" * 1000

    def note_more_than_there_is_room_for() -> None:
        for _ in range(2 * ROOM // len(text)):
            recorder.tape.end(text)

    client = threading.Thread(target=note_more_than_there_is_room_for, daemon=True)
    client.start()
    client.join(SECONDS)
    assert not client.is_alive()
    recorder.close()


def test_a_replay_comes_to_the_same(recorded: Path) -> None:
    outcome = replay(recorded, verify=True)
    assert outcome.fatal == ""
    assert outcome.submissions == 3
    assert (outcome.pages_same, outcome.pages_other) == (2 * SIZE // 4096, 0)
    assert outcome.pages_confirmed > 0
    assert outcome.results_other == 0


def test_a_replay_tells_what_has_become_otherwise(recorded: Path, tmp_path: Path) -> None:
    _, records = read_file(recorded)
    last = max(i for i, r in enumerate(records) if r.kind in (Kind.MEMORY, Kind.LAST))
    broken = [
        put(
            record.kind,
            record.body[:-1] + b"\xee" if i == last else record.body,
            flags=record.flags,
            time=record.time,
            stream=record.stream,
        )
        for i, record in enumerate(records)
    ]
    other = tmp_path / "other.hesper"
    other.write_bytes(file_of(b"".join(broken)))
    outcome = replay(other, verify=True)
    assert outcome.pages_other == 1
    assert "is another" in outcome.differences[0]


def test_a_replay_stops_where_it_is_told_to(recorded: Path) -> None:
    outcome = replay(recorded, until=5)
    assert outcome.commands + outcome.left_out == 5


def test_more_than_there_is_room_for_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "large.hesper"
    size = 24 << 20
    recorder = record_to(path)
    copier = Copier(recorder, size)
    assert copier.copy(pattern(9, size)) == pattern(9, size)
    copier.close()
    recorder.close()
    _, records = read_file(path)
    noted = sum(len(memory_of(r)[2]) for r in records if r.kind in (Kind.MEMORY, Kind.LAST))
    assert noted == 2 * size
    assert replay(path, verify=True).pages_other == 0


def test_a_file_grows_to_its_limit_and_the_guest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "small.hesper"
    recorder = record_to(path, RecordOptions(folder="", most=20_000))
    copier = Copier(recorder)
    for seed in range(5):
        data = os.urandom(SIZE)
        assert copier.copy(data) == data, seed
    copier.close()
    recorder.close()
    assert path.stat().st_size < 21_000
    _, records = read_file(path)
    assert records[-1].kind == Kind.END
    assert b"has reached 20000 bytes" in records[-1].body


def newest(path: Path) -> Path:
    """The one of two files that was written to last."""
    return max(path.parent.glob(f"{path.name}*"), key=lambda each: each.stat().st_mtime_ns)


def begins_later(path: Path) -> bool:
    """Whether a file, which is being written, begins with what lived before."""
    try:
        return any(record.flags & EARLIER for record in read_file(path)[1])
    except RecordingError:
        return False


def test_the_last_seconds_are_kept_and_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "last.hesper"
    recorder = record_to(path, RecordOptions(folder="", last=0.3), files=2)
    copier = Copier(recorder)
    gone = copier.guest.create("Buffer", {"size": 64, "usage": 1})
    copier.guest.send("vkDestroyBuffer", device=DEVICE, buffer=gone)
    count = 0
    deadline = time.monotonic() + SECONDS
    while not begins_later(newest(path)) and time.monotonic() < deadline:
        assert copier.copy(pattern(count)) == pattern(count)
        count += 1
    copier.close()
    recorder.close()
    kept = newest(path)
    reader, records = read_file(kept)
    assert not reader.lacks_beginning
    commands = [record for record in records if record.kind == Kind.COMMAND]
    earlier = [decode(0, each) for each in commands if each.flags & EARLIER]
    made = [each.name for each in earlier]
    assert made.count("vkCreateBuffer") == len(copier.buffers), "not what is gone"
    assert "vkQueueSubmit" not in made
    outcome = replay(kept, verify=True)
    assert outcome.fatal == ""
    assert 0 < outcome.submissions < count
    assert (outcome.pages_same, outcome.pages_other) == (2 * SIZE // 4096, 0)
    assert outcome.results_other == 0


def test_the_last_seconds_are_no_larger_than_they_may_be(tmp_path: Path) -> None:
    path = tmp_path / "small.hesper"
    options = RecordOptions(folder="", last=0.3, most=300_000)
    recorder = record_to(path, options, files=2)
    copier = Copier(recorder)
    deadline = time.monotonic() + SECONDS
    while not recorder.tape.is_over and time.monotonic() < deadline:
        copier.copy(os.urandom(SIZE))
    copier.close()
    recorder.close()
    assert newest(path).stat().st_size < 310_000
    _, records = read_file(newest(path))
    assert b"has reached 300000 bytes" in records[-1].body


def test_a_file_without_its_beginning_is_not_replayed(tmp_path: Path) -> None:
    path = tmp_path / "late.hesper"
    whole = file_of(put(Kind.END, b""))
    chunk = pack(RECORDS, 7, put(Kind.END, b""))
    path.write_bytes(whole[: -len(chunk)] + chunk)
    with pytest.raises(ReplayError, match="lacks its beginning"):
        replay(path)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_what_a_process_was_told_outlives_it(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "dead.hesper"
    script = f"""
import os, socket, sys, time
from pathlib import Path
from hesper.kernel.crashes import report_crashes
from recorded_guest import Copier, record_to
ours, theirs = socket.socketpair()
report_crashes(ours.fileno())
path = Path(sys.argv[1])
copier = Copier(record_to(path))
copier.copy(b"1" * 4096)
if {int(number)} == {int(signal.SIGKILL)}:
    # Until what was noted before is in the file: nothing is said of the quarter second before.
    size = path.stat().st_size
    while path.stat().st_size == size:
        time.sleep(0.01)
copier.guest.send("vkDestroyBuffer", device=3, buffer=0)
os.kill(os.getpid(), {int(number)})
"""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, path], env=environ, check=False)
    assert done.returncode == -number
    _, records = read_file(path)
    names = [decode(0, r).name for r in records if r.kind == Kind.COMMAND]
    assert "vkQueueSubmit" in names or number == signal.SIGKILL
    if number == signal.SIGSEGV:
        assert names[-1] == "vkDestroyBuffer"


def test_a_file_that_takes_no_more_ends_the_recording_alone() -> None:
    reading, writing = os.pipe()
    recorder = Recorder([writing], ABOUT_NOTHING, ALWAYS)
    os.close(reading)
    copier = Copier(recorder)
    assert copier.copy(pattern(1)) == pattern(1)
    copier.close()
    recorder.close()
    assert recorder.tape.is_over


def test_commands_of_a_failed_guest_are_there(tmp_path: Path) -> None:
    path = tmp_path / "failed.hesper"
    recorder = record_to(path)
    copier = Copier(recorder)
    with pytest.raises(Exception, match=r"no command|unknown"):
        copier.guest.context.submit(b"\xff\xff\xff\x7f" + bytes(4))
    copier.close()
    recorder.close()
    _, records = read_file(path)
    ends = [r for r in records if r.kind == Kind.END]
    assert ends[0].body != b""
    failed = [r for r in records if r.kind == Kind.COMMAND and r.flags & 4]
    assert command_of(failed[0]).data == b"\xff\xff\xff\x7f" + bytes(4)
