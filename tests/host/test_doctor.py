"""What `hesper doctor` and `hesper drivers` find out, say, and end with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hesper.api.diagnosis import merge_mends
from hesper.host import diagnosis
from hesper.host.diagnosis import BROKEN, NOTE, OK, Finding, diagnose, venus_version
from hesper.portable import architecture

MANIFESTS = Path("/usr/share/vulkan/icd.d")
LAVAPIPE = next(iter(sorted(MANIFESTS.glob("lvp_icd*.json"))))
VENUS = next(iter(sorted(MANIFESTS.glob("virtio_icd*.json"))))
SECONDS = 2 * diagnosis.PROGRAM_SECONDS
"""Longer than what doctor gives each program that it asks."""


def environ(manifests: str | Path) -> dict[str, str]:
    """An environment in which only those drivers exist."""
    return {**os.environ, "VK_DRIVER_FILES": str(manifests)}


def find(findings: list[Finding], topic: str) -> Finding:
    """The finding of a topic."""
    return next(finding for finding in findings if finding.topic == topic)


def hesper(*arguments: str, manifests: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-c", "from hesper.cli import main; main()", *arguments]
    return subprocess.run(
        command,
        env=environ(manifests),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def test_software_is_told_from_a_gpu() -> None:
    finding = find(diagnose(environ(LAVAPIPE)), "host driver")
    assert finding.status == NOTE
    assert finding.text.startswith("software only: lvp: llvmpipe")


@pytest.mark.parametrize(
    ("mode", "said", "mend"),
    [
        (0o600, "although there is a GPU (AMD): its driver is missing", "mesa-vulkan-drivers"),
        (0o000, "may not be opened", "usermod -aG"),
    ],
)
def test_a_gpu_that_is_not_used_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, said: str, mend: str
) -> None:
    node = tmp_path / "dev/dri/renderD128"
    vendor = tmp_path / "drm/card0/device/vendor"
    for file in (node, vendor):
        file.parent.mkdir(parents=True)
        file.write_text("0x1002\n")
    monkeypatch.setattr(diagnosis, "_DEVICES", tmp_path / "dev")
    monkeypatch.setattr(diagnosis, "_CARDS", tmp_path / "drm")
    # Root may open everything: ask the mode instead.
    monkeypatch.setattr(os, "access", lambda path, _: path != node or bool(mode))
    finding = find(diagnose(environ(LAVAPIPE)), "host driver")
    assert finding.status == NOTE
    assert said in finding.text
    assert mend in finding.mend


def test_a_driver_that_fails_its_gpu_is_told_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vendor = tmp_path / "drm/card0/device/vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x1002\n")
    monkeypatch.setattr(diagnosis, "_DEVICES", tmp_path / "dev")
    monkeypatch.setattr(diagnosis, "_CARDS", tmp_path / "drm")
    radeon = next(iter(sorted(MANIFESTS.glob("radeon_icd*.json"))))
    finding = find(diagnose(environ(f"{LAVAPIPE}:{radeon}")), "host driver")
    assert "a GPU (AMD), whose driver cannot use it" in finding.text
    assert "hesper drivers" in finding.mend


def test_no_driver_at_all(tmp_path: Path) -> None:
    finding = find(diagnose(environ(tmp_path)), "host driver")
    assert (finding.status, finding.text) == (BROKEN, "none is installed")
    assert finding.mend.endswith("mesa-vulkan-drivers")


def test_only_a_guests_driver() -> None:
    finding = find(diagnose(environ(VENUS)), "host driver")
    assert finding.status == BROKEN
    assert f"virtio ({VENUS}): for guests only" in finding.text


def test_broken_manifests_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "gone.json"
    findings = diagnose(environ(f"{LAVAPIPE}:{broken}"))
    assert find(findings, "manifest").text == f"{broken}: no such file"
    assert find(findings, "driver search").status == NOTE


def test_what_guests_need_on_a_host_with_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "page_size", lambda: 4096)
    assert not [each for each in diagnose(environ(LAVAPIPE)) if each.topic == "guests' pages"]
    monkeypatch.setattr(diagnosis, "page_size", lambda: 16384)
    finding = find(diagnose(environ(LAVAPIPE)), "guests' pages")
    assert finding.status == NOTE
    words = ("16384", "arm64-16k", "Linux 7.2", "Mesa 26.2.4", "--no-blob-alignment")
    assert all(word in finding.text for word in words)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("no program", "Exec format error"),
        ("#!/bin/sh\nexec sleep 600\n", "has not ended"),
        ("#!/bin/sh\necho Library not loaded: glib >&2\nexit 6\n", "Library not loaded: glib"),
    ],
)
def test_a_qemu_that_says_nothing_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    """One for another processor, that a slow machine does not get to run, or without a library."""
    for name in (f"qemu-system-{architecture()}", "apt-cache"):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if "sleep" in program:
        monkeypatch.setattr(diagnosis, "PROGRAM_SECONDS", 0.1)
    finding = find(diagnose(environ(LAVAPIPE)), "QEMU")
    assert finding.status == NOTE
    assert "cannot be run" in finding.text
    assert why in finding.text


def test_venus_and_its_version() -> None:
    finding = find(diagnose(environ(LAVAPIPE)), "Venus client")
    assert finding.status == OK
    library = json.loads(VENUS.read_text())["ICD"]["library_path"]
    version = venus_version(library)
    assert version is not None
    assert f"Mesa {version}" in finding.text
    assert venus_version("libnothing.so") is None


def test_an_old_venus_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "venus_version", lambda _: "22.3.6-1+deb12u1")
    finding = find(diagnose(environ(LAVAPIPE)), "Venus client")
    assert finding.status == NOTE
    assert "22.3.6-1+deb12u1" in finding.text
    assert "24.0 or newer is needed" in finding.text


def test_mends_are_one_command_each_package_manager() -> None:
    mends = ["sudo apt-get install a b", "", "do this", "sudo apt-get install b c", "do this"]
    assert merge_mends(mends) == ["sudo apt-get install a b c", "do this"]


def test_doctor_ends_with_0_where_guests_can_be_served() -> None:
    done = hesper("doctor", manifests=LAVAPIPE)
    assert done.returncode == 0, done.stderr
    assert "Hesper can serve guests here." in done.stdout
    assert "\x1b" not in done.stdout, "no colours off a terminal"


def test_doctor_ends_with_1_where_not() -> None:
    done = hesper("doctor", "--json", manifests=VENUS)
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["able"] is False
    broken = [each["topic"] for each in answer["findings"] if each["status"] == BROKEN]
    assert broken == ["host driver"]


def test_a_report_is_one_file_that_tells_of_the_machine_and_not_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MVK_CONFIG_LOG_LEVEL", "4")
    monkeypatch.setenv("HESPER_TOKEN", "secret-value")
    monkeypatch.setenv("COMPANY_PROJECT", "private-value")
    manifest = tmp_path / "lavapipe.json"
    manifest.write_text(LAVAPIPE.read_text())
    file = tmp_path / "report.json"
    done = hesper("doctor", "--report", str(file), manifests=manifest)
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stdout
    text = file.read_text()
    told = json.loads(text)
    assert told["findings"]
    assert told["page"]["system"] == os.sysconf("SC_PAGE_SIZE")
    assert told["environment"]["MVK_CONFIG_LOG_LEVEL"] == "4"
    (driver,) = told["drivers"]
    assert driver["manifest"] == "~/lavapipe.json"
    assert driver["devices"][0]["memory"]["imported"]
    assert not any(word in text for word in ("secret-value", "private-value", str(tmp_path)))
    missing = tmp_path / "no" / "report.json"
    done = hesper("doctor", "--report", str(missing), manifests=manifest)
    assert done.returncode == 1
    assert f"--report {missing}" in done.stderr


def test_rosetta_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def told(name: str) -> bytes:
        asked.append(name)
        return (1).to_bytes(4, "little")

    monkeypatch.setattr("hesper.portable.platform.control", told)
    finding = find(diagnose(environ(LAVAPIPE)), "machine")
    assert asked == ["sysctl.proc_translated"]
    assert finding.status == BROKEN
    assert "Rosetta" in finding.text
    assert "/opt/homebrew" in finding.mend


def test_drivers_lists_all_and_marks_one() -> None:
    done = hesper("drivers", "--json", manifests=f"{VENUS}:{LAVAPIPE}")
    assert done.returncode == 0, done.stderr
    virtio, lavapipe = json.loads(done.stdout)["drivers"]
    assert (virtio["name"], virtio["guest_only"], virtio["chosen"]) == ("virtio", True, False)
    assert (lavapipe["name"], lavapipe["chosen"]) == ("lvp", True)
    assert lavapipe["devices"][0]["type"] == "cpu"
    table = hesper("drivers", manifests=f"{VENUS}:{LAVAPIPE}").stdout
    assert "->  lvp" in table
    assert str(LAVAPIPE) in table


def test_drivers_ends_with_1_without_any() -> None:
    assert hesper("drivers", manifests=VENUS).returncode == 1


@pytest.mark.parametrize("there", [True, False])
def test_doctor_says_whether_screens_can_be_a_video(tmp_path: Path, *, there: bool) -> None:
    if there:
        program = tmp_path / "ffmpeg"
        program.write_text("#!/bin/sh\necho ' V..... libx264 H.264'\n")
        program.chmod(0o755)
    command = [sys.executable, "-c", "from hesper.cli import main; main()", "doctor"]
    done = subprocess.run(
        command,
        env={**environ(LAVAPIPE), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    (line,) = [line for line in done.stdout.splitlines() if line[6:].startswith("video ")]
    wanted = f"ok    video          H.264 by {tmp_path}/ffmpeg" if there else "note  video"
    assert line.startswith(wanted)
    assert there or "ffmpeg is not installed" in line
