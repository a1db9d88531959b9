"""The status socket: answers for the server's own user, and nothing else for anybody."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watched_server import FIGURES, Watching

from hesper.observe import asking, places, status, wire
from hesper.observe.asking import Watched, WatchError, servers
from hesper.portable import FRAME, SharedMemory, recv_message, send_message
from open_files import assert_no_more_descriptors, count_descriptors

BOUND = 120.0


def connect(watching: Watching) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(BOUND)
    sock.connect(str(places.status_socket(watching.place)))
    return sock


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def closed(sock: socket.socket) -> list[dict[str, object]]:
    """What comes until the server hangs up."""
    said: list[dict[str, object]] = []
    while True:
        try:
            message = recv_message(sock)
        except ConnectionError:
            return said
        if message is None:
            return said
        said.append(json.loads(message[0]))


def still_answers(watching: Watching) -> None:
    with servers(Path(watching.place)) as (server,):
        assert server.report().clients[0].name == "vkcube"


def test_a_report_has_what_the_server_says(watching: Watching) -> None:
    with servers() as (server,):
        report = server.report(7.0)
    assert watching.server.watched == [7.0]
    assert (report.kind, report.sockets, report.process) == (
        "serve", [watching.place], os.getpid(),
    )  # fmt: skip
    assert (report.driver, report.device) == ("lvp", "llvmpipe")
    (client,) = report.clients
    for name in ("context", "name", "commands", "frames", "busy_ns", "memory", "limit", "process"):
        assert getattr(client, name) == getattr(FIGURES, name)
    assert client.doing == list(FIGURES.doing)
    assert client.accounts == dict(FIGURES.accounts)
    assert report.screens == [wire.Screen(1, 0, 0, 0)]


def test_a_program_is_ended_by_its_number(watching: Watching) -> None:
    with servers() as (server,):
        assert server.end(3) == "vkcube"
        assert server.end(4) is None
    assert watching.server.ended == [3, 4]


NO_QUESTIONS = {
    "no JSON": b"\x00\xff{",
    "a number": b"7",
    "a deep list": b"[" * 1000,
    "another question": b'{"ask": "exec", "command": "sh"}',
    "another field": b'{"ask": "report", "watch": 1.0, "more": 1}',
    "watched for ever": b'{"ask": "report", "watch": 1e9}',
    "watched for less than nothing": b'{"ask": "report", "watch": -1}',
    "no program": b'{"ask": "end", "context": "3"}',
    "a trace of no time": b'{"ask": "trace", "seconds": 0}',
    "a trace for ever": b'{"ask": "trace", "seconds": 1e400}',
    "too long": b'{"ask": "report", "watch": 1' + b"0" * wire.MOST_ASKED + b"}",
    "empty": b"",
}


@pytest.mark.parametrize("name", NO_QUESTIONS)
def test_what_is_no_question_ends_the_connection(watching: Watching, name: str) -> None:
    with connect(watching) as sock:
        send_message(sock, NO_QUESTIONS[name])
        said = closed(sock)
    assert [each["is"] for each in said] == ["refused"]
    assert watching.server.ended == []
    assert watching.server.traces == []
    still_answers(watching)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack("=II", 0xFFFFFFFF, 0) + b"x" * 100,
        struct.pack("=II", 16, 64) + b"x" * 16,
        FRAME.pack(100, 0) + b"half of it",
    ],
)
def test_what_is_no_message_ends_the_connection(watching: Watching, data: bytes) -> None:
    with connect(watching) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        closed(sock)
    still_answers(watching)


def test_descriptors_are_not_kept(watching: Watching) -> None:
    still_answers(watching)
    until(lambda: not watching.status._connections)  # noqa: SLF001
    before = count_descriptors()
    for _ in range(5):
        with connect(watching) as sock, SharedMemory.create(1, "unwanted") as memory:
            send_message(sock, b'{"ask": "report"}', [memory.fd] * 8)
            assert [each["is"] for each in closed(sock)] == ["refused"]
    until(lambda: not watching.status._connections)  # noqa: SLF001
    assert_no_more_descriptors(before)


def test_another_user_is_told_nothing(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    place = places.status_socket(watching.place)
    monkeypatch.setattr("hesper.observe.status.os.geteuid", lambda: user + 1)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(BOUND)
        sock.connect(str(place))
        (said,) = closed(sock)
    assert said == {"is": "refused", "why": "only the server's own user may ask"}
    assert watching.server.ended == []


def test_who_asks_in_crowds_is_told_so_and_the_others_go_on(watching: Watching) -> None:
    silent = [connect(watching) for _ in range(status.MOST_CONNECTIONS)]
    until(lambda: len(watching.status._connections) == status.MOST_CONNECTIONS)  # noqa: SLF001
    with connect(watching) as sock:
        assert [each["is"] for each in closed(sock)] == ["refused"]
    send_message(silent[0], b'{"ask": "report"}')
    message = recv_message(silent[0])
    assert message is not None
    assert json.loads(message[0])["is"] == "report"
    for sock in silent:
        sock.close()
    until(lambda: not watching.status._connections)  # noqa: SLF001
    still_answers(watching)


def test_who_is_silent_is_hung_up_on(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PATIENCE", 0.05)
    with connect(watching) as sock:
        assert closed(sock) == []


def test_who_does_not_read_is_hung_up_on(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "PATIENCE", 0.2)
    watching.server.figures = [FIGURES._replace(context=number) for number in range(500)]
    with connect(watching) as sock:
        for _ in range(20):
            try:
                send_message(sock, b'{"ask": "report"}')
            except OSError:
                break
        until(lambda: not watching.status._connections)  # noqa: SLF001


def test_a_report_of_many_clients_is_a_message_still(watching: Watching) -> None:
    long = FIGURES._replace(name="\x1b" * 100, doing=(("driver", "v" * 64),) * 9)
    watching.server.figures = [long._replace(context=number) for number in range(2000)]
    with servers() as (server,):
        assert len(server.report().clients) == status.MOST_REPORTED


def test_a_server_that_stops_hangs_up(runtime: Path) -> None:
    watching = Watching(runtime)
    with watching.status:
        sock = connect(watching)
    assert closed(sock) == []
    sock.close()
    assert list(runtime.iterdir()) == []
    assert places.status_sockets() == []
    with pytest.raises(WatchError, match="no server of yours runs"), servers():
        pass


def test_a_server_that_stops_leaves_another_alone(watching: Watching, runtime: Path) -> None:
    other = Watching(runtime)
    other.place += "-2"
    with other.status:
        assert len(places.status_sockets()) == 2
    still_answers(watching)


@pytest.mark.usefixtures("runtime")
def test_what_a_killed_server_has_left_is_removed() -> None:
    path = places.status_socket("somewhere")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
    with pytest.raises(WatchError), servers():
        pass
    assert not path.exists()


def test_a_folder_that_others_can_use_is_not_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all, mine = runtime / "open", runtime / "mine"
    monkeypatch.setattr(places, "_candidates", lambda: [open_to_all, mine])
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert places.own_folder() == mine
    assert mine.stat().st_mode & 0o777 == 0o700
    mine.rmdir()
    mine.symlink_to(open_to_all)
    watching = Watching(runtime)
    with watching.status:  # it is logged, and the server serves
        assert list(open_to_all.iterdir()) == []


def test_a_server_is_found_by_where_its_clients_connect(watching: Watching) -> None:
    with servers(Path(watching.place)) as found:
        assert len(found) == 1
    with pytest.raises(WatchError, match="hesper ps shows"), servers(Path("/nowhere/vtest")):
        pass


def test_a_trace_brings_memory_and_frames(watching: Watching) -> None:
    with SharedMemory.create(4096, "trace") as memory:
        watching.server.memory = {3: memory.fd}
        flushed = threading.Thread(target=flush, args=[watching])
        flushed.start()
        with servers() as (server,):
            trace = server.trace(1.0)
            over = time.monotonic_ns()
        flushed.join()
        assert [os.fstat(fd).st_ino for fd in trace.memory.values()] == [os.fstat(memory.fd).st_ino]
    assert trace.clients == {3: ("vkcube", 1234)}
    assert {screen for screen, _ in trace.frames} == {1}
    assert all(trace.began <= when <= over for _, when in trace.frames)
    trace.close()
    display = watching.display
    assert display is not None
    until(lambda: not watching.server.traces and not display[0].watchers)


def flush(watching: Watching) -> None:
    """Show frames for as long as somebody looks."""
    assert watching.display is not None
    scanout = watching.display[0]
    until(lambda: scanout.watchers == 1)
    while scanout.watchers:
        scanout.flush([])
        time.sleep(0.05)


def test_there_is_one_trace_at_a_time(watching: Watching) -> None:
    watching.server.traces.append(None)
    with servers() as (server,), pytest.raises(WatchError, match="traces this server already"):
        server.trace(1.0)


def test_who_leaves_his_trace_ends_it(watching: Watching) -> None:
    with connect(watching) as sock:
        send_message(sock, b'{"ask": "trace", "seconds": 300}')
        message = recv_message(sock)
        assert message is not None
        assert json.loads(message[0])["is"] == "began"
        assert len(watching.server.traces) == 1
    until(lambda: not watching.server.traces)


@pytest.mark.usefixtures("runtime")
def test_a_server_of_another_version_is_said_to_be_one() -> None:
    path = places.status_socket("other")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()

        def answer() -> None:
            with sock.accept()[0] as client:
                recv_message(client)
                send_message(client, b'{"is": "hologram"}')

        thread = threading.Thread(target=answer)
        thread.start()
        with Watched(path) as server, pytest.raises(WatchError, match="another version"):
            server.report()
        thread.join()


@pytest.mark.usefixtures("runtime")
def test_a_server_that_is_stuck_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.05)
    path = places.status_socket("other")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with Watched(path) as server:
            with pytest.raises(WatchError, match="does not answer: timed out"):
                server.report()
            sock.accept()[0].close()
            with pytest.raises(WatchError, match=r"takes no question|does not answer|has ended"):
                server.end(1)
