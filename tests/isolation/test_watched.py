"""Watching `hesper serve` with real Venus clients: `hesper top`, `ps`, `kill` and metrics."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import HESPER, PATIENCE, Supervised, environment, until

from hesper.api.client import client_environment, find_venus

Serve = Callable[..., Supervised]
CLIENT = [sys.executable, "-m", "hesper.bench.client"]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this user's sockets, with a short path; no other server's is there."""
    with tempfile.TemporaryDirectory(prefix="hw-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


class Program:
    """A client of a server."""

    def __init__(self, server: Supervised, *command: str) -> None:
        variables = environment(**client_environment(find_venus(None), str(server.path)))
        self.process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def says(self, pattern: str) -> None:
        """Wait for a line."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if re.search(pattern, line):
                return
        raise AssertionError(f"it has ended with {self.process.wait(PATIENCE)}")

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def hesper(*arguments: str, status: int = 0) -> str:
    """What a command prints, of either stream if it fails."""
    done = subprocess.run(
        [*HESPER, *arguments], env=environment(), capture_output=True, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def place(server: Supervised) -> tuple[str, str]:
    """Which server is meant: root sees all of root's, those of other tests as well."""
    return "--socket", str(server.path)


def top(server: Supervised) -> dict[int, dict[str, Any]]:
    """What `hesper top` shows of a server's programs, by their processes."""
    words = ["--once", "--json", "--interval", "0.3", *place(server)]
    (seen,) = json.loads(hesper("top", *words))
    assert seen["kind"] == "serve"
    return {client["process"]: client for client in seen["clients"]}


@pytest.fixture
def watched(serve: Serve, runtime: Path) -> Supervised:
    server = serve("--metrics", f"unix:{runtime / 'metrics'}")
    server.ready()
    return server


def metrics(runtime: Path) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(runtime / "metrics"))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(1 << 16), b"")).decode()


def test_programs_are_seen_with_what_they_hold(watched: Supervised, runtime: Path) -> None:
    assert hesper("ps", *place(watched)) == f"no program is served by {watched.path}\n"
    with Program(watched, *CLIENT, "hold") as one, Program(watched, *CLIENT, "hold") as other:
        one.says("device")
        other.says("device")
        lines = hesper("ps", *place(watched)).splitlines()[1:]
        rows = {row[1]: row for row in map(str.split, lines)}
        assert set(rows) == {str(one.process.pid), str(other.process.pid)}

        def answered() -> list[dict[str, Any]]:
            """The programs, once all of their workers have answered in time."""
            (report,) = json.loads(hesper("ps", "--json", *place(watched)))
            clients: list[dict[str, Any]] = report["clients"]
            return clients if all(client["commands"] for client in clients) else []

        for client in until(answered, "what they do"):
            assert client["name"] == "python3" or client["name"].startswith("python")
            assert client["user"] == os.geteuid()
            assert client["commands"] > 10
            assert client["memory"] > 0
            assert client["limit"] > client["memory"]
            assert client["held"]["devices"][0] == 1
        seen = top(watched)
        assert set(seen) == {one.process.pid, other.process.pid}
        assert {client["waits_for"] for client in seen.values()} == {"its program"}
        text = metrics(runtime)
        assert "hesper_contexts 2.0\n" in text
        assert len(re.findall(r"^hesper_context_commands_total{", text, re.MULTILINE)) == 2


def test_the_class_of_a_program_is_told(serve: Serve, runtime: Path, tmp_path: Path) -> None:
    server = serve(
        *("--metrics", f"unix:{runtime / 'metrics'}", "--class", f"mine:user={os.geteuid()}"),
        *("--class", "gold", "--socket", f"{tmp_path / 'gold'}:class=gold"),
    )
    server.ready()
    until(lambda: [*runtime.glob("hesper-status/*")] and (runtime / "metrics").exists(), "it")
    with Program(server, *CLIENT, "hold") as one:
        one.says("device")
        head, line = hesper("ps").splitlines()
        assert head.split()[-1] == "class"
        assert line.split()[-1] == "mine"
        assert " and 1 more " in line
        (report,) = json.loads(hesper("ps", "--json"))
        assert report["clients"][0]["class"] == "mine"
        assert top(server)[one.process.pid]["class"] == "mine"
        told = re.compile(r'^hesper_context_class{.*class="mine".*} 1\.0$', re.MULTILINE)
        assert told.search(metrics(runtime))


def test_a_programs_work_is_timed(watched: Supervised, runtime: Path, stress: str) -> None:
    with Program(watched, stress, "2", "100000") as one:
        one.says("streaming")
        pid = one.process.pid
        until(lambda: top(watched)[pid]["queue_busy_seconds"] > 0, "its queue to be timed")

        def is_seen() -> bool:
            seen = top(watched)[pid]
            rates = seen["submissions_per_second"], seen["commands_per_second"]
            return 0 < float(seen["queue_busy"]) <= 1.5 and min(rates) > 0

        # Where much else runs, it may do nothing in a moment, or say late what it has done.
        until(is_seen, "its work")
        until(lambda: not re.search(r"queue_busy_seconds_total{.*} 0\.0$", metrics(runtime)), "it")


def test_a_program_is_ended_by_its_number(watched: Supervised) -> None:
    with Program(watched, *CLIENT, "hold") as one, Program(watched, *CLIENT, "hold") as other:
        one.says("device")
        other.says("device")
        seen = top(watched)
        number = seen[one.process.pid]["id"]
        assert "there is no program 99" in hesper("kill", "99", *place(watched), status=1)
        assert hesper("kill", str(number), *place(watched)).startswith(f"ended {number} (python")
        killed = watched.logged("client killed")
        assert (killed["client"], killed["reason"]) == (number, "its user has said: hesper kill")
        until(lambda: set(top(watched)) == {other.process.pid}, "it to be gone")
        assert other.process.poll() is None


def test_a_trace_has_programs_that_are_there_and_that_come(
    watched: Supervised, runtime: Path, stress: str
) -> None:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    path = runtime / "trace"
    with Program(watched, stress, "2", "100000") as one:
        one.says("streaming")
        words = [*HESPER, "top", "--trace", str(path), "--seconds", "8", *place(watched)]
        tracing = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True)
        assert tracing.stdout is not None
        assert tracing.stdout.readline() == "tracing for 8 s\n"
        with Program(watched, stress, "2", "100000") as other:
            other.says("streaming")
            said, _ = tracing.communicate(timeout=PATIENCE)
            pids = {one.process.pid, other.process.pid}
    assert tracing.returncode == 0
    assert re.fullmatch(rf"{path}: \d+ entries of 2 programs; open it with .*\n", said)
    file = Trace.FromString(path.read_bytes())
    about = [each.track_descriptor for each in file.packet if each.HasField("track_descriptor")]
    names = [each.process.process_name for each in about if each.HasField("process")]
    assert {int(name.rpartition(" ")[2]) for name in names} == pids
    tracks = {each.name for each in about}
    assert {"ring 1", "queue 1"} <= tracks
    events = {packet.track_event.name for packet in file.packet}
    assert "vkQueueSubmit" in events or "vkWaitForFences" in events
    assert any(name.startswith("submission ") for name in events)


def test_nobody_sees_a_server_that_is_to_show_nothing(serve: Serve, runtime: Path) -> None:
    server = serve("--no-status")
    server.ready()
    said = hesper("ps", *place(server), status=1)
    assert said.startswith(f"hesper: no server of yours listens on {server.path}")
    assert not [*runtime.glob("hesper-status/*")]
    assert server.stop() == 0


def test_a_server_that_ends_takes_its_sockets_along(watched: Supervised, runtime: Path) -> None:
    assert watched.stop(signal.SIGTERM) == 0
    assert not [*runtime.glob("hesper-status/*")]
    assert not (runtime / "metrics").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:http", "--metrics localhost:http: 'localhost:http' is no address"),
        ("unix:/dev/null/metrics", "--metrics unix:/dev/null/metrics: .*choose another place"),
    ],
)
def test_metrics_that_cannot_be_served_are_said(
    serve: Serve, runtime: Path, address: str, said: str
) -> None:
    server = serve("--metrics", address)
    assert server.end() == 1
    assert re.search(said, "".join(server.plain)), server.plain
    assert not [*runtime.glob("hesper-status/*")]


def test_a_taken_port_is_said(serve: Serve, runtime: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = serve("--metrics", address)
        assert server.end() == 1
    assert f"--metrics {address}: " in "".join(server.plain)
    assert not [*runtime.glob("hesper-status/*")]


def test_a_program_of_its_own_is_seen_as_well(runtime: Path) -> None:
    words = [*HESPER, "run", "--driver", "lavapipe", "--", *CLIENT, "hold"]
    running = subprocess.Popen(
        words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        assert "device" in running.stdout.readline()
        reports = json.loads(hesper("ps", "--json"))
        (report,) = [each for each in reports if each["process"] == running.pid]
        assert report["kind"] == "run"
        assert len(report["clients"]) == 1
    finally:
        running.communicate("\n", timeout=PATIENCE)
    assert not [*runtime.glob("hesper-status/*")]
