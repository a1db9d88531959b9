"""One client, one process: what happens to a worker happens to nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import (
    HERE,
    PATIENCE,
    EchoClient,
    Supervised,
    alive,
    children_of,
    environment,
    until,
)

from hesper.isolation.doorstep import MOST_OF_ONE
from hesper.isolation.waiting import MOST_REFUSED, MOST_WAITING
from hesper.portable import process_usage
from lingering import lingering
from native import WAYS

Start = Callable[..., Supervised]
NO_TEMPLATE = "no template to fork workers from, they are started anew until there is one"


@pytest.fixture(params=WAYS)
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a supervisor, with workers forked from a template or spawned as on every system."""
    running = []

    def start(**wanted: Any) -> Supervised:
        environ = {"HESPER_WORKERS": request.param}
        running.append(Supervised(tmp_path / "socket", environ=environ, **wanted))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.end()


def test_each_client_has_a_process_and_leaves_none(start: Start) -> None:
    one = start(warm=2, surplus_seconds=0.5)
    assert one.ready() == {"event": "ready", "driver": "echo", "count": 1}
    for _ in range(2):
        one.logged("worker ready")
    descriptors = one.descriptors()
    clients = [one.client() for _ in range(5)]
    pids = {client.ask()[0] for client in clients}
    assert len(pids) == 5
    for client in clients:
        client.close()
    until(lambda: not any(map(alive, pids)), "the end of the workers")
    until(lambda: len(one.children()) == 2, "two ready workers again")
    until(lambda: one.descriptors() == descriptors, "the descriptors to be as before")
    assert one.stop() == 0
    assert not one.path.exists()
    assert one.plain == []


def test_later_workers_get_the_options_the_first_has_settled(start: Start) -> None:
    one = start()
    one.ready()
    first, second = one.client(), one.client()
    assert first.ask()[1] == 1
    assert second.ask()[1] == 2


@pytest.mark.parametrize(
    ("order", "event", "reason"),
    [
        ("signal SIGSEGV", "worker died", "was killed by SIGSEGV"),
        ("signal SIGKILL", "worker died", "was killed by SIGKILL"),
        ("fault SUBMIT_CMD2: no sync 3", "client ended", "SUBMIT_CMD2: no sync 3"),
        ("bug lost", "client ended", "internal error: KeyError: 'lost'"),
        ("say x", "client killed", "it sends nonsense: ChannelError("),
        ("say []", "client killed", "it sends nonsense: ChannelError("),
    ],
)
def test_an_end_is_one_line_and_the_others_go_on(
    start: Start, order: str, event: str, reason: str
) -> None:
    one = start(warm=1)
    one.ready()
    other, bad = one.client(), one.client()
    pid = other.ask()[0]
    bad.ask("name culprit")
    bad.say(order)
    assert bad.gone()
    entry = one.logged(event)
    assert entry["reason"].startswith(reason)
    assert (entry["name"], entry["level"], entry["pid"]) == ("culprit", "error", os.getpid())
    assert other.ask()[0] == pid
    assert one.client().ask()[0] != pid
    assert one.stop() == 0
    assert len([line for line in one.log if line["event"] == event]) == 1
    assert one.plain == []


def test_a_number_without_end_ends_its_worker_and_nothing_else(start: Start) -> None:
    one = start(warm=1)
    one.ready()
    other, bad = one.client(), one.client()
    pid = other.ask()[0]
    bad.say('send {"is":"crashed","thread":"","command":"","call":1e999,"with":[]}')
    entry = one.logged("client killed")
    assert entry["reason"].startswith("it sends nonsense: OverflowError(")
    assert other.ask()[0] == pid
    assert one.stop() == 0
    assert one.plain == []


def test_what_a_worker_logs_appears_with_its_client(start: Start) -> None:
    one = start()
    one.ready()
    client = one.client()
    client.ask("name me")
    client.ask("log something odd")
    entry = one.logged("something odd")
    assert (entry["level"], entry["number"], entry["name"]) == ("warning", 7, "me")


def test_the_log_says_why_before_the_client_sees_its_end(tmp_path: Path) -> None:
    path, log = tmp_path / "socket", tmp_path / "log"
    wanted = json.dumps({"path": str(path), "slow_log": 0.3})
    with log.open("wb") as file:
        command = [sys.executable, str(HERE / "supervise.py"), wanted]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, env=environment(), text=True
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith('{"event": "ready"')
        client = EchoClient(path)
        client.ask("end it asked for too much")
        (line,) = [line for line in log.read_text().splitlines() if "client ended" in line]
        assert json.loads(line)["reason"] == "it asked for too much"
        client.say("fault it asked for too much")
        assert client.gone()
        client.close()
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()
    assert log.read_text().count("client ended") == 1


def test_a_worker_that_takes_what_it_was_not_granted_is_ended(start: Start) -> None:
    one = start(warm=1, memory=32 << 20, uncounted=300 << 20, audit_seconds=0.01)
    one.ready()
    honest, liar = one.client(), one.client()
    honest.ask(f"eat {150 << 20}")
    liar.ask('send {"is": "gives", "lease": 0}')
    liar.ask("name liar")
    one.logged("client connected")  # what it said before is known, too
    liar.say(f"eat {400 << 20}")
    killed = one.logged("client killed")
    assert killed["client"] == 2
    assert killed["reason"].endswith("bytes of memory, and was granted 0")
    assert honest.ask()
    assert one.stop() == 0


@pytest.mark.parametrize("lease", ['"much"', "null", "[]", "-1", "1e300"])
def test_whatever_a_worker_wants_the_others_are_served(start: Start, lease: str) -> None:
    one = start(warm=1, memory=1 << 30)
    one.ready()
    other = one.client()
    other.ask()
    liar = one.client()
    for kind in ("wants", "gives"):
        liar.say(f'send {{"is": "{kind}", "lease": {lease}}}')
    liar.close()
    assert other.ask()
    assert one.client().ask()
    assert one.stop() == 0


def lines(one: Supervised, event: str) -> int:
    """How many lines of that event there have been, by what the log says."""
    of_it = [entry for entry in one.log if entry["event"] == event]
    return len(of_it) + sum(int(entry.get("left_out", 0)) for entry in of_it)


def few(one: Supervised) -> float:
    """More lines than a flood may leave: some at once, and then one each fifth of a second."""
    return 100 + 10 * (time.monotonic() - one.since)


def test_what_a_client_floods_the_log_with_is_counted(start: Start) -> None:
    one = start()
    one.ready()
    client = one.client()
    client.ask("name me")
    client.ask("flood 100000")
    client.ask("flood 100000")
    client.close()
    one.logged("client left")
    until(lambda: lines(one, "flooded") == 200_000, "all lines to be counted")
    assert len(one.log) < few(one)


def test_what_a_driver_writes_is_in_the_log_with_its_client(start: Start) -> None:
    one = start()
    one.ready()
    client = one.client()
    client.ask("name me")
    client.ask("write careful \x1b[31m\xff")
    entry = one.logged("the driver writes")
    assert (entry["level"], entry["name"]) == ("warning", "me")
    assert entry["text"] == r"careful \x1b[31m\xff"
    client.say("write 12345")
    client.say("signal SIGKILL")
    assert one.logged("the driver writes")["text"] == "12345"
    one.logged("worker died")
    assert one.stop() == 0
    assert one.plain == []


def test_what_a_driver_floods_the_log_with_is_counted(start: Start) -> None:
    one = start()
    one.ready()
    client = one.client()
    client.ask("name me")
    client.ask("write-numbers 100000")
    client.ask("write-numbers 100000")
    assert one.client().ask()
    client.close()
    one.logged("client left")
    assert one.stop() == 0
    assert lines(one, "the driver writes") == 200_000
    assert len(one.log) < few(one)
    assert one.plain == []


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "x", "logger": "x", "level": "x", "timestamp": "x"},
        {"exc_info": "x", "stack": 3, "stack_info": [1], "exception": {"a": "b"}},
        {"self": 1, "": 2, "a b": 3, "\n": 4, "\x1b[31m": 5},
        {str(number): "x" * 100 for number in range(300)},
    ],
)
def test_a_worker_says_nothing_that_the_log_chokes_on(start: Start, fields: dict[str, Any]) -> None:
    one = start()
    one.ready()
    client = one.client()
    said = {"is": "log", "level": "error", "logger": "x", "event": "odd", "fields": fields}
    client.ask(f"send {json.dumps(said)}")
    entry = one.logged("odd")
    assert entry["level"] == "error"
    assert len(json.dumps(entry)) < 10_000
    assert all(key.isprintable() for key in entry)
    assert client.ask()
    assert one.stop() == 0
    assert one.plain == []


def test_clients_beyond_the_limit_wait_for_a_place(start: Start) -> None:
    one = start(max_clients=2, place_patience=1000.0)
    one.ready()
    first, second = one.client(), one.client()
    pids = {first.ask()[0], second.ask()[0]}
    one.logged("all places are taken")
    third = one.client()
    third.say("hello")
    first.close()
    assert third.ask()[0] not in pids


def test_who_waits_for_a_place_in_vain_is_told(start: Start) -> None:
    one = start(max_clients=1, place_patience=0.05)
    one.ready()
    first = one.client()
    first.ask()
    assert one.client().read() == "refused: all places are taken\n"
    entry = one.logged("client refused")
    assert (entry["reason"], entry["max_clients"]) == ("all places are taken", 1)
    first.close()
    until(lambda: one.client().asked(), "a place")


def test_more_than_may_wait_are_told_at_once(start: Start) -> None:
    one = start(max_clients=1, place_patience=1000.0)
    one.ready()
    first = one.client()
    first.ask()
    waiting = [one.client() for _ in range(MOST_WAITING)]
    refused = [one.client() for _ in range(10)]
    assert {client.read() for client in refused} == {"refused: all places are taken\n"}
    until(lambda: lines(one, "client refused") == 10, "the refusals to be logged")
    first.close()
    assert waiting[0].ask()


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("never again", "too many clients at once: no worker was ready in time"),
        ("crash later", "no worker can start: a worker ended with status 3"),
    ],
)
def test_who_waits_for_a_worker_in_vain_is_told(start: Start, way: str, reason: str) -> None:
    one = start(options={"start": way}, answer_within=2.0)
    one.ready()
    first = one.client()
    first.ask()
    if way == "crash later":
        one.logged("a worker cannot start")  # however long it takes until it crashes
    assert one.client().read() == f"refused: {reason}\n"
    assert one.logged("client refused")["reason"] == reason
    assert first.ask()
    assert one.stop() == 0


def test_who_comes_when_there_are_no_descriptors_left_is_told(start: Start) -> None:
    one = start(max_clients=1000, descriptors=24, accept_pause=0.05, answer_within=2.0)
    one.ready()
    told = ""
    clients = [one.client()]
    assert clients[0].ask()
    # There is none for the client, or none for a worker; before that a worker may be slow to start.
    while "Too many open files" not in told:
        clients.append(one.client())
        clients[-1].say("hello")
        told = clients[-1].read_line()
    while "Too many open files" not in one.logged("client refused")["reason"]:
        pass
    assert "refused: " in one.client().read_line()
    assert clients[0].ask()
    for client in clients:
        client.close()
    until(lambda: one.client().asked(), "a place")
    assert one.stop() == 0


def test_a_burst_makes_more_workers_ready_until_it_is_over(start: Start) -> None:
    one = start(warm=1, surplus_seconds=0.5)
    one.ready()
    clients = [one.client() for _ in range(4)]
    for client in clients:
        client.ask()
    until(lambda: len(one.children()) >= 4 + 2, "more than one worker to be ready")
    for client in clients:
        client.close()
    until(lambda: len(one.children()) == 1, "one worker to be left")
    assert not [entry for entry in one.log if entry["event"] == "a waiting worker is gone"]


def test_a_worker_has_nothing_of_others(start: Start) -> None:
    one = start(warm=2)
    one.ready()
    clients = [one.client() for _ in range(3)]
    for client in clients:
        client.ask()
    clients[-1].ask("descriptors")
    seen = one.logged("client connected")["name"].split()
    # The standard ones, its control socket, its client, the wake-up of its poll, that of its share
    # of the GPU's time, the list itself.
    assert len(seen) <= 9, seen
    pid, _ = clients[-1].ask()
    assert b"MALLOC_TRIM_THRESHOLD_=" in Path(f"/proc/{pid}/environ").read_bytes()


def test_workers_outlive_their_template(start: Start, request: pytest.FixtureRequest) -> None:
    one = start(warm=1, template_backoff=300.0)
    one.ready()
    template = one.template()
    if request.node.callspec.params["start"] == "spawn":
        assert not template
        return
    client = one.client()
    pid = client.ask()[0]
    os.kill(template, signal.SIGKILL)
    lost = one.logged(NO_TEMPLATE)
    assert (lost["reason"], lost["next_attempt_in_seconds"]) == ("it has ended", 300.0)
    assert client.ask()[0] == pid
    others = [one.client() for _ in range(3)]
    assert pid not in {other.ask()[0] for other in others}
    client.say("signal SIGKILL")
    assert one.logged("worker died")["reason"] == "ended, nobody knows how"
    assert others[0].ask()
    assert one.stop() == 0


def wait_for_another(one: Supervised, template: int) -> None:
    until(lambda: one.template() not in {0, template}, "another template")


def has_forked(one: Supervised) -> bool:
    """Whether the supervisor knows of a worker that the template has forked."""
    ready = {entry["worker"] for entry in one.log if entry["event"] == "worker ready"}
    return bool(ready & set(children_of(one.template())))


def test_a_template_that_has_ended_is_followed_by_another(
    start: Start, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["start"] == "spawn":
        return
    one = start(warm=1, template_backoff=0.01)
    one.ready()
    for _ in range(2):
        template = one.template()
        os.kill(template, signal.SIGKILL)
        # It has forked a worker, so that the next may come soon.
        assert one.logged(NO_TEMPLATE)["next_attempt_in_seconds"] == 0.01
        one.logged("workers are forked from a template again")
        wait_for_another(one, template)
        clients = [one.client() for _ in range(3)]
        assert all(client.ask() for client in clients)
        until(lambda: has_forked(one), "a worker of its own")
        for client in clients:
            client.close()
    assert one.stop() == 0


def test_a_client_has_a_worker_when_it_has_introduced_itself(start: Start) -> None:
    one = start(silence=1000.0)
    one.ready()
    # Two less than may be: those that come after them say nothing at first, either.
    silent = [one.client() for _ in range(MOST_OF_ONE - 2)]
    silent[0].sock.sendall(b"hel")
    assert one.client().ask()[0] != one.client().ask()[0]
    assert not [entry for entry in one.log if entry["event"] == "client refused"]
    assert silent[0].ask()
    assert silent[1].ask()


def test_who_does_not_introduce_itself_is_shown_out(start: Start) -> None:
    one = start(silence=0.2)
    one.ready()
    assert one.client().gone()  # what the server opens once it is ready is open then
    descriptors = one.descriptors()
    silent, slow = one.client(), one.client()
    with contextlib.suppress(BrokenPipeError):  # it may have been shown out already
        slow.sock.sendall(b"hel")
    assert silent.gone()
    assert slow.gone()
    until(lambda: lines(one, "client refused") == 3, "the refusals to be logged")
    reasons = {entry["reason"] for entry in one.log if entry["event"] == "client refused"}
    assert reasons == {"it has not introduced itself in 0.2 s"}
    until(lambda: one.descriptors() == descriptors, "the descriptors to be as before")
    served = until(lambda: (client := one.client()).asked() and client, "one that is in time")
    assert served.ask()[1] == 1  # no worker was spent
    assert one.stop() == 0
    assert one.plain == []


@pytest.mark.parametrize("data", [b"hel", b" x"])
def test_what_a_client_sends_along_keeps_nobody_waiting(start: Start, data: bytes) -> None:
    """The last descriptor of a socket whose closing takes hours; others are served meanwhile."""
    one = start(silence=0.2)
    one.ready()
    assert one.client().gone()
    descriptors = one.descriptors()
    fd, other = lingering()
    client = one.client()
    socket.send_fds(client.sock, [data], [fd])
    os.close(fd)
    with other:
        assert client.gone()
        served = until(lambda: (client := one.client()).asked() and client, "another client")
        assert served.ask()
        served.close()
    until(lambda: one.descriptors() == descriptors, "the descriptors to be as before")
    assert one.stop() == 0


def test_who_introduces_itself_as_nobody_does_is_shown_out(start: Start) -> None:
    one = start(silence=1000.0)
    one.ready()
    strange = one.client()
    strange.sock.sendall(b" x")
    assert strange.gone()
    assert one.logged("client refused")["reason"] == "it begins with a blank"
    assert one.client().ask()[1] == 1  # no worker was spent
    assert one.stop() == 0
    assert one.plain == []


def test_a_flood_of_silent_clients_shuts_nobody_out(start: Start) -> None:
    one = start(silence=1000.0)
    one.ready()
    flood = [one.client() for _ in range(10 * MOST_OF_ONE)]
    assert one.client().ask()[1] == 1
    assert one.descriptors() < 4 * MOST_OF_ONE
    assert flood[0].gone()
    assert flood[-1].ask()
    until(lambda: lines(one, "client refused") >= 9 * MOST_OF_ONE, "all to be counted")
    assert len(one.log) < few(one)


def test_who_leaves_before_it_has_a_worker_costs_none(start: Start) -> None:
    one = start(silence=1000.0, max_clients=1)
    one.ready()
    first = one.client()
    assert first.ask()[1] == 1
    for _ in range(20):
        client = one.client()
        client.say("hello")
        client.close()
    waiting = one.client()
    waiting.say("hello")
    first.close()
    assert waiting.read_line().split()[1] == "2"


def test_one_process_does_not_take_all_places(start: Start) -> None:
    one = start(max_clients=3, per_process=2, place_patience=0.05)
    one.ready()
    first, second = one.client(), one.client()
    assert first.ask()
    assert second.ask()
    reason = "its process has all places it may have"
    assert one.client().read() == f"refused: {reason}\n"
    entry = one.logged("client refused")
    assert (entry["reason"], entry["per_process"]) == (reason, 2)
    (other,) = one.clients_of_another_process(1)
    assert other.ask()
    first.close()
    until(lambda: one.client().asked(), "a place")


def test_who_waits_in_numbers_keeps_nobody_else_from_waiting(start: Start) -> None:
    one = start(max_clients=2, place_patience=1000.0)
    one.ready()
    first, second = one.client(), one.client()
    assert first.ask()
    assert second.ask()
    flood = [one.client() for _ in range(3 * MOST_WAITING)]
    (other,) = one.clients_of_another_process(1)
    other.say("hello")
    until(lambda: lines(one, "client refused") == 2 * MOST_WAITING + 1, "the room to be crowded")
    for client in [first, *flood]:
        client.close()
    assert other.read_line()[0].isdigit()


def test_who_connects_in_a_loop_goes_after_others(start: Start) -> None:
    one = start(max_clients=1, place_patience=1000.0, connections_at_once=3)
    one.ready()
    first = one.client()
    assert first.ask()
    loop = [one.client() for _ in range(8)]
    for client in loop:
        client.say("hello")
    (other,) = one.clients_of_another_process(1)
    other.say("hello")
    until(lambda: lines(one, "client waits for others: its process connects too often") == 6, "it")
    # Two of the loop came before it, and as often as they may.
    for client in [first, *loop[:2]]:
        client.close()
    assert other.read_line()[0].isdigit()
    other.close()
    assert loop[2].read_line()[0].isdigit()


def test_who_does_not_take_its_refusal_in_keeps_nobody_from_theirs(start: Start) -> None:
    one = start(max_clients=1, place_patience=0.01, refuse_slowly=True)
    one.ready()
    first = one.client()
    assert first.ask()
    stubborn = [one.client() for _ in range(2 * MOST_REFUSED)]
    until(lambda: lines(one, "client refused") == 2 * MOST_REFUSED, "all to be refused")
    (other,) = one.clients_of_another_process(1)
    assert other.read_line() == "refused: all places are taken\n"
    assert stubborn[-1].read_line() == "refused: all places are taken\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything(start: Start, number: int) -> None:
    one = start(warm=2)
    one.ready()
    client = one.client()
    pids = {client.ask()[0], *one.children()}
    assert one.stop(number) == 0, one.plain
    assert client.gone()
    assert not any(map(alive, pids))
    assert not one.path.exists()


def test_a_worker_that_does_not_stop_is_killed(start: Start) -> None:
    one = start(patience=0.05)
    one.ready()
    client = one.client()
    pid = client.ask()[0]
    client.say("hang")
    assert one.stop() == 0
    assert not alive(pid)
    one.logged("client killed")


def test_a_second_signal_does_not_wait(start: Start) -> None:
    one = start(patience=1000)
    one.ready()
    client = one.client()
    client.ask("name me")
    client.say("hang")
    one.process.send_signal(signal.SIGTERM)
    one.logged("stopping")
    assert one.stop(signal.SIGINT) == 0
    one.logged("stopping")
    assert one.logged("client killed")["reason"] == "a second SIGINT"


def test_a_worker_that_is_stuck_when_its_client_leaves_ends(start: Start) -> None:
    one = start()
    one.ready()
    client = one.client()
    pid = client.ask()[0]
    client.say("hang")
    client.close()
    # A program that was killed in mid-computation is no error.
    assert one.logged("its client has left: work is given up")["level"] == "info"
    assert one.logged("client left")["level"] == "info"
    until(lambda: not alive(pid), "the end of the worker")


def test_a_worker_that_hangs_up_and_stays_is_killed(start: Start) -> None:
    one = start(patience=0.05)
    one.ready()
    client = one.client()
    client.say("mute")
    assert one.logged("client killed")["reason"] == "it hung up and stayed"
    assert client.gone()
    assert one.client().ask()


def test_workers_do_not_outlive_their_supervisor(start: Start) -> None:
    one = start(warm=2)
    one.ready()
    client = one.client()
    pids = {client.ask()[0], *one.children()}
    one.stop(signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), "the end of the workers")
    assert client.gone()


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("fail", "failed: there is no driver"),
        ("crash", "failed: a worker was killed by SIGSEGV"),
        ("bug", "failed: internal error: KeyError: 'a mistake'"),
        ("lie", "failed: it sends nonsense: TypeError('what it has found out is no object')"),
    ],
)
def test_a_worker_that_can_never_start_ends_it(start: Start, wanted: str, reason: str) -> None:
    one = start(options={"start": wanted})
    assert one.end() == 1
    assert next(line for line in one.plain if line.startswith("failed")).startswith(reason)
    assert not one.path.exists()


def test_a_worker_that_never_gets_ready_ends_it(start: Start) -> None:
    one = start(start_patience=0.001)
    assert one.end() == 1
    assert one.plain == ["failed: not ready after 0.001 s\n"]


def test_workers_that_cannot_start_any_more_are_tried_less_and_less(start: Start) -> None:
    one = start(options={"start": "crash later"})
    one.ready()
    client = one.client()
    client.ask()
    pauses = [one.logged("a worker cannot start")["next_attempt_in_seconds"] for _ in range(3)]
    assert pauses == [0.5, 1.0, 2.0]
    assert client.ask()
    assert one.stop() == 0


def test_a_client_does_not_wait_for_a_worker_that_starts_in_the_background(start: Start) -> None:
    one = start(warm=1, options={"start": "never in the background"})
    one.ready()
    first = one.client()
    serving = first.ask()[0]
    until(lambda: len(one.children()) == 2, "the next worker to start")
    (stuck,) = set(one.children()) - {serving}
    assert one.client().ask()[0] not in (serving, stuck)
    assert one.stop() == 0
    assert not alive(stuck)


def test_a_hundred_killed_clients_leave_nothing(start: Start) -> None:
    one = start(warm=1, surplus_seconds=0.5)
    one.ready()
    assert one.client().ask()  # what the server opens once it is ready is open then
    until(lambda: lines(one, "client left") == 1, "its end")
    until(lambda: lines(one, "worker ready") == 2 and len(one.children()) == 1, "the next worker")
    descriptors, children = one.descriptors(), len(one.children())
    used = 0
    for turn in range(100):
        client = one.client()
        client.say("name gone")
        client.close()
        if turn == 20:
            one.client().ask()
            used = process_usage(one.process.pid).resident
    assert one.client().ask()
    until(lambda: len(one.children()) == children, "the workers to be gone")
    until(lambda: one.descriptors() == descriptors, "the descriptors to be as before")
    assert process_usage(one.process.pid).resident < used + (4 << 20)
    assert process_usage(one.process.pid).resident < 60 << 20
    assert one.plain == []
