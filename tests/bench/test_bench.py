"""`hesper bench` as it is used: real runs on this machine's lavapipe, judged by what they hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hesper.bench import processes
from hesper.bench.client.work import WORKS
from hesper.bench.document import Document
from hesper.bench.explain import STAGES
from hesper.bench.processes import KINDS, Activity, activity, memory_kinds, memory_use, tree
from hesper.bench.sides import BARE, HESPER, SEEN
from kernel.conftest import wait_for

BENCH = (sys.executable, "-c", "from hesper.cli import main; main()", "bench")
SECONDS = 540.0
"""For one run of a suite, where other tests have the processor as well."""

pytestmark = pytest.mark.timeout(600)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BENCH, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment(),
        check=False,
    )


QUICK = ("--quick", "--runs", "1", "--driver", "lvp")


@pytest.mark.parametrize(
    "suite", ["latency", "stream", "memory", "instances", "scale", "footprint"]
)
def test_every_figure_of_a_suite(suite: str, tmp_path: Path) -> None:
    found, drawn = tmp_path / "found.json", tmp_path / "found.svg"
    files = ("--json", found, "--picture", drawn)
    done = bench(*QUICK, "--no-peer", "--suite", suite, "--clients", "1", "2", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    document = Document.read(found)
    assert document.devices[BARE] in document.devices[HESPER]
    assert not document.failures
    (result,) = document.suites
    assert result.name == suite
    assert any(row.ratio(HESPER, BARE) for row in result.rows)
    for row in result.rows:
        assert row.metric.title in done.stdout
        # An idle process uses nothing, which is a figure too.
        least = 0.0 if "idle" in row.key else sys.float_info.min
        assert all(each.median >= least for each in row.values.values()), row
    again = bench("--read", found)
    assert again.stdout == done.stdout
    assert drawn.read_text().startswith("<svg")


def test_a_soak_says_what_grows_and_where(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    words = ("--suite", "soak", "--soak-seconds", "1")
    done = bench(*QUICK, "--no-peer", *words, "--json", found)
    assert done.returncode == 0, done.stdout + done.stderr
    (suite,) = Document.read(found).suites
    rows = {row.key: row.values for row in suite.rows}
    for side in (BARE, HESPER):
        values = {key: row[side].median for key, row in rows.items()}
        assert values["rounds"] > 0
        assert values["last"] - values["first"] == values["growth"]
        kinds = sum(values[f"growth_{kind}"] for kind in KINDS)
        assert kinds == values["growth"]
        assert values["first"] > 20 << 20
        # The work itself leaves nothing behind.
        assert values["growth_heap"] < 32 << 20


def test_memory_by_kind() -> None:
    code = (
        "import mmap\n"
        "from hesper.portable import SharedMemory\n"
        "shared = SharedMemory.create(64 << 20, 'hesper-test')\n"
        "print(flush=True); input()\n"
        "shared.view[:] = b'1' * (64 << 20); print(flush=True); input()\n"
        "ours = b'1' * (32 << 20); print(flush=True); input()\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        found = []
        for _ in range(3):
            process.stdout.readline()
            found.append(memory_kinds(process.pid))
            process.stdin.write(b"\n")
            process.stdin.flush()
    assert set(found[0]) == set(KINDS)
    assert found[0]["files"] > 1 << 20
    assert found[1]["shared"] - found[0]["shared"] == 64 << 20
    assert found[2]["heap"] - found[1]["heap"] >= 32 << 20


def test_programs_on_the_bare_driver_as_guests_see_it(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    suites = ("--suite", "app", "--suite", "stream")
    done = bench(*QUICK, "--no-peer", "--as-seen", *suites, "--json", found)
    assert done.returncode == 0, done.stdout + done.stderr
    app, stream = Document.read(found).suites
    compute = next(row for row in app.rows if row.key == "compute")
    assert compute.ratio(HESPER, SEEN)
    # Only programs look at what a driver shows.
    assert all(set(row.values) <= {BARE, HESPER} for row in stream.rows)
    assert "Hesper / as seen" in done.stdout


def test_a_peer_that_does_not_work_is_left_out(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    peer = ("--peer-command", "sh -c 'echo there is no device >&2; exit 3' {socket}")
    done = bench(*QUICK, "--suite", "stream", *peer, "--json", found)
    assert done.returncode == 0, done.stdout + done.stderr
    document = Document.read(found)
    assert list(document.devices) == [BARE, HESPER]
    assert any("there is no device" in note for note in document.notes)


def test_what_is_done_outlives_an_interruption(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    suites = ("--suite", "stream", "--suite", "scale")
    command = [*BENCH, *QUICK, "--no-peer", *suites, "--json", str(found)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as run:
        watchdog = threading.Timer(SECONDS, run.kill)
        watchdog.start()
        assert run.stderr
        for line in run.stderr:
            if line.startswith("scale: run 1"):
                break
        started = tree(run.pid)
        run.terminate()
        shown, rest = run.communicate()
        watchdog.cancel()
    assert run.returncode == 1, rest
    document = Document.read(found)
    assert [suite.name for suite in document.suites] == ["stream"]
    assert document.failures == ("interrupted in the suite scale, which is missing",)
    assert document.failures[0] in shown
    assert len(started) > 1
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "what it started")


def test_an_early_interruption_shows_nothing(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [*BENCH, *QUICK, "--no-peer", "--suite", "stream", "--json", str(found)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as run:
        assert run.stderr
        assert run.stderr.readline() == "trying bare driver\n"
        run.terminate()
        shown, rest = run.communicate(timeout=SECONDS)
    assert (run.returncode, shown, found.exists()) == (130, "", False), rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peer", "--peer-command", "no-such-program {socket}"), "no-such-program"),
        (("--peer-command", "sh", "--peer"), "{socket}"),
        (("--runs", "0"), "--runs 0"),
        (("--clients", "0"), "--clients"),
        (("--soak-seconds", "-1"), "--soak-seconds -1"),
        (("--model", "/no/such/model"), "/no/such/model"),
        (("--picture", "figures.jpg"), "figures.jpg"),
        (("--", "vkcube"), "vkcube"),
        (("--explain", "--", "/no/such/program"), "/no/such/program"),
        (("--read", "/no/such/file"), "/no/such/file"),
        (("--driver", "no-such-driver"), "no-such-driver"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[str, ...], message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]


def test_explaining_names_what_was_done() -> None:
    done = bench("--explain", "--quick", "--driver", "lvp")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if "%" in line}
    assert set(lines) == set(WORKS)
    assert "vkCmdDraw (driver)" in lines["draw"]
    assert "vkCreateDevice (handler)" in done.stdout
    for line in lines.values():
        shares = [int(share) for share in re.findall(r"(\d+)%", line)[: len(STAGES)]]
        assert abs(sum(shares) - 100) <= len(STAGES), line


def test_explaining_a_program() -> None:
    client = (sys.executable, "-m", "hesper.bench.client", "probe")
    done = bench("--explain", "--driver", "lvp", "--", *client)
    assert done.returncode == 0, done.stderr
    assert "vkCreateDevice (handler)" in done.stdout


def test_what_processes_use() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1); input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first, second = tree(process.pid)
        assert first == process.pid
        used = memory_use(second)
        assert 0 < used.proportional < used.resident
        before = activity([first, second])
        assert before.cpu > 0
        assert before.wake_ups
        process.communicate(b"\n")
    with pytest.raises(ProcessLookupError):
        activity([second])


def test_what_processes_use_whose_threads_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has ended between the look at its folder and that into its file."""
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    tasks = tmp_path / "7" / "task"
    for thread in ("7", "8", "9"):
        (tasks / thread).mkdir(parents=True)
    (tasks / "7" / "schedstat").write_text("1500000000 7 2\n")
    (tasks / "9" / "schedstat").write_text("500000000 7 3\n")
    assert activity([7]) == Activity(2.0, 5)
