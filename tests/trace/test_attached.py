"""The last recording goes with a report of what does not work."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from recordings import ABOUT_NOTHING, command, file_of
from test_recorded_machine import ended

from hesper.api import recording
from hesper.isolation.recordings import Recordings, RecordOptions, last_recording
from hesper.protocol.codec import Codec
from hesper.trace.records import Reader

SECRET = b"/home/somebody/secret"
COMMANDS = command(
    Codec().encode(
        "vkCreateInstance",
        {"pCreateInfo": {"pApplicationInfo": {"pApplicationName": SECRET}}, "pInstance": 1},
    )
)
ABOUT = msgspec.structs.replace(ABOUT_NOTHING, program=SECRET.decode())


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's last recording."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    recordings = Recordings(RecordOptions(folder=str(tmp_path / "recordings")))
    (file,) = recordings.begin(1)
    os.write(file, file_of(COMMANDS, about=ABOUT))
    os.close(file)
    recordings.end(ended(1))
    (path,) = (tmp_path / "recordings").iterdir()
    return path


def doctor(report: Path, *words: str) -> tuple[dict[str, object], str]:
    """What is reported, and what is printed."""
    program = (sys.executable, "-c", "from hesper.cli import main; main()")
    done = subprocess.run(
        [*program, "doctor", "--report", str(report), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert report.exists(), done.stderr
    found: dict[str, object] = json.loads(report.read_text())
    return found, done.stdout


def test_the_last_recording_is_known_until_it_is_gone(recorded: Path) -> None:
    assert last_recording() == recorded
    recorded.unlink()
    assert last_recording() is None


def test_a_report_has_the_last_recording_without_whose_it_is(
    recorded: Path, tmp_path: Path
) -> None:
    report, printed = doctor(tmp_path / "report.json")
    attached = tmp_path / "report.hesper"
    data = attached.read_bytes()
    assert report["recording"] == {
        "of": recorded.name,
        "anonymous": True,
        "file": attached.name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert recorded.name in printed
    assert attached.stat().st_mode & 0o777 == 0o600
    reader = Reader(io.BytesIO(data))
    assert reader.about.program != SECRET.decode()
    bodies = [record.body for record in reader]
    assert len(bodies) == 1
    assert SECRET not in bodies[0]


@pytest.mark.usefixtures("recorded")
def test_another_one_goes_with_it_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "other.hesper"
    other.write_bytes(file_of(COMMANDS, COMMANDS, about=ABOUT))
    words = ("--recording", str(other), "--attach", "whole")
    report, _ = doctor(tmp_path / "report.json", *words)
    assert (tmp_path / "report.hesper").read_bytes() == other.read_bytes()
    assert report["recording"]["anonymous"] is False  # type: ignore[index]


@pytest.mark.usefixtures("recorded")
def test_none_goes_with_it(tmp_path: Path) -> None:
    report, _ = doctor(tmp_path / "report.json", "--attach", "none")
    assert "recording" not in report
    assert not (tmp_path / "report.hesper").exists()


def test_why_it_is_left_out_is_said(recorded: Path, tmp_path: Path) -> None:
    recorded.write_bytes(b"no recording")
    report, printed = doctor(tmp_path / "report.json")
    assert report["recording"] == {
        "of": recorded.name,
        "anonymous": True,
        "left_out": "byte 0: this is no recording of Hesper's",
    }
    assert "not attached" in printed
    assert not (tmp_path / "report.hesper").exists()


def test_a_large_one_is_left_out(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MOST_ATTACHED", 10)
    attached = recording.attach(recorded, tmp_path / "copy", is_anonymous=False)
    assert "it is larger than" in attached["left_out"]
    assert not (tmp_path / "copy").exists()
    # What lies there is somebody's.
    (tmp_path / "copy").write_bytes(b"mine")
    assert "is there already" in recording.attach(recorded, tmp_path / "copy")["left_out"]
    assert (tmp_path / "copy").read_bytes() == b"mine"
