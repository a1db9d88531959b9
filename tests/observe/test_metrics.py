"""Metrics: what Prometheus gets, over HTTP, and the dashboard that shows them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from watched_server import FIGURES, WatchedServer

from hesper.display.access.places import Address, UnixPath
from hesper.display.scanout import Display
from hesper.observe import exporter
from hesper.observe.contexts import ContextLedger
from hesper.observe.exporter import Exporter, ExporterError, parse_address
from hesper.observe.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "packaging" / "grafana" / "hesper.json"
BOUND = 120.0


class Exported:
    """A server's metrics."""

    def __init__(self) -> None:
        self.server = WatchedServer()
        self.metrics = Metrics()
        server: Any = self.server
        self.metrics.add_server(server, Display(2))
        self.metrics.add_contexts(ContextLedger(lambda: server.survey(60.0)))

    def samples(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(self.metrics.text().decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found


@pytest.fixture
def exported() -> Exported:
    return Exported()


@pytest.fixture
def served(exported: Exported) -> Iterator[Exporter]:
    with Exporter(Address("127.0.0.1", 0), exported.metrics.text) as served:
        yield served


def get(
    served: Exporter,
    path: str = "/metrics",
    method: str = "GET",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> http.client.HTTPResponse:
    assert isinstance(served.where, Address)
    connection = http.client.HTTPConnection("127.0.0.1", served.where.port, timeout=BOUND)
    connection.request(method, path, headers=dict(headers))
    return connection.getresponse()


def test_a_program_has_all_its_figures(exported: Exported) -> None:
    found = exported.samples()
    labels = {"context": "3", "name": "vkcube"}
    for name, value in {
        "hesper_context_commands_total": 1000,
        "hesper_context_submissions_total": 40,
        "hesper_context_queue_busy_seconds_total": 0.5,
        "hesper_context_frames_total": 10,
        "hesper_context_age_seconds": 75,
        "hesper_context_memory_bytes": 5 << 20,
        "hesper_context_memory_limit_bytes": 1 << 30,
    }.items():
        assert found[name] == [(labels, value)]
    assert found["hesper_context_waits"] == [({**labels, "for": "the GPU"}, 1)]
    assert found["hesper_contexts"] == [({}, 1)]
    assert found["hesper_driver_info"] == [({"driver": "lvp", "device": "llvmpipe"}, 1)]
    assert [labels["screen"] for labels, _ in found["hesper_guest_frames_total"]] == ["1", "2"]
    assert exported.server.watched == [60.0]


def test_names_of_programs_are_no_lines_of_their_own(exported: Exported) -> None:
    name = 'x"} 1\nhesper_contexts 99\n\\'
    exported.server.figures = [FIGURES._replace(name=name)]
    found = exported.samples()
    assert found["hesper_contexts"] == [({}, 1)]
    shown = name.replace("\n", "?")
    assert found["hesper_context_frames_total"] == [({"context": "3", "name": shown}, 10)]


def test_a_terminal_that_shows_metrics_has_nothing_to_obey(exported: Exported) -> None:
    name = "\x1b]0;title\x07\x9b2J café"
    exported.server.figures = [FIGURES._replace(name=name)]
    assert all(line.isprintable() for line in exported.metrics.text().decode().split("\n"))
    ((labels, _),) = exported.samples()["hesper_context_frames_total"]
    assert labels["name"] == "?]0;title??2J café"


def test_sums_never_fall(exported: Exported) -> None:
    def total() -> float:
        return exported.samples()["hesper_commands_total"][0][1]

    assert total() == 1000
    exported.server.figures = []
    assert total() == 1000
    exported.server.figures = [FIGURES._replace(context=4, commands=5)]
    assert total() == 1005


def test_the_dashboard_shows_metrics_that_exist(exported: Exported) -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [
        each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"
    ]
    shown = {name for text in expressions for name in re.findall(r"hesper_\w+", text)}
    there = exported.samples()
    assert shown <= set(there), shown - set(there)
    # Of contexts it shows everything.
    assert {name for name in there if name.startswith("hesper_context_")} <= shown
    for text in expressions:
        for name, labels in re.findall(r"by \(([\w, ]+)\) \((hesper_\w+)", text):
            wanted = set(name.split(", ")) - {"instance"}
            assert wanted <= set(there[labels][0][0]), (name, labels)


def test_the_dashboards_panels_lie_beside_each_other() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, panel["title"]
                assert x < 24
                taken.add((x, y))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_metrics_are_served(served: Exporter) -> None:
    answer = get(served)
    assert answer.status == 200
    assert answer.getheader("Content-Type", "").startswith("text/plain; version=0.0.4")
    assert b'hesper_context_frames_total{context="3",name="vkcube"} 10.0' in answer.read()
    assert get(served, "/").status == 404
    assert get(served, method="POST").status == 405


@pytest.mark.parametrize("path", ["/metrics", "/"])
def test_a_web_page_reads_none(served: Exporter, path: str) -> None:
    """Whose name has come to lead to this machine: the browser says by which name it asks."""
    for name in (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[",
    ):
        answer = get(served, path, headers={"Host": name})
        assert answer.status in {400, 403}
        assert b"vkcube" not in answer.read()
    good = 200 if path == "/metrics" else 404
    for name in (
        "localhost",
        "LOCALHOST:80",
        "a.localhost.",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]:1",
    ):
        assert get(served, path, headers={"Host": name}).status == good


def test_where_others_may_ask_any_name_does(exported: Exported) -> None:
    with Exporter(Address("0.0.0.0", 0), exported.metrics.text) as served:
        assert get(served, headers={"Host": "node7.example"}).status == 200


def test_a_program_that_says_no_name_is_no_browser(served: Exporter) -> None:
    assert isinstance(served.where, Address)
    with socket.create_connection((served.where.host, served.where.port), BOUND) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b" 200 OK\r\n" in b"".join(iter(lambda: sock.recv(4096), b""))


def test_metrics_are_served_on_a_socket(exported: Exported, runtime: Path) -> None:
    path = runtime / "metrics"
    with Exporter(UnixPath(path), exported.metrics.text), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(BOUND)
        sock.connect(str(path))
        assert path.stat().st_mode & 0o777 == 0o600
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert not path.exists()


def test_a_taken_port_is_said(served: Exporter, exported: Exported) -> None:
    with (
        pytest.raises(ExporterError, match=r"--metrics 127.0.0.1:\d+: .*choose another place"),
        Exporter(served.where, exported.metrics.text),
    ):
        pass


def test_addresses() -> None:
    assert parse_address("9000") == Address("127.0.0.1", 9000)
    assert parse_address("0.0.0.0:9000") == Address("0.0.0.0", 9000)
    assert parse_address("unix:/run/x") == UnixPath(Path("/run/x"))
    with pytest.raises(ValueError, match="no address"):
        parse_address("localhost:http")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 70_000,
        b"\r\n" * 1000,
    ],
)
def test_nonsense_is_answered_or_hung_up_on(served: Exporter, data: bytes) -> None:
    assert isinstance(served.where, Address)
    place = (served.where.host, served.where.port)
    with socket.create_connection(place, BOUND) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(data)
        with contextlib.suppress(OSError):  # the other end may have hung up
            sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert get(served).status == 200


def test_who_is_silent_makes_room(exported: Exported) -> None:
    with Exporter(Address("127.0.0.1", 0), exported.metrics.text) as served:
        assert isinstance(served.where, Address)
        place = (served.where.host, served.where.port)
        silent = [socket.create_connection(place, BOUND) for _ in range(60)]
        assert get(served).status == 200
        end = time.monotonic() + BOUND
        while (
            sum(sock.fileno() >= 0 and _is_open(sock) for sock in silent) > exporter.BOUNDS.waiting
        ):
            assert time.monotonic() < end
        for sock in silent:
            sock.close()


def _is_open(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_a_scrape_that_takes_its_time_stops_nobody(exported: Exported) -> None:
    slow, asked = threading.Event(), threading.Event()

    def text() -> bytes:
        asked.set()
        slow.wait(BOUND)
        return exported.metrics.text()

    with Exporter(Address("127.0.0.1", 0), text) as served:
        thread = threading.Thread(target=lambda: get(served).read())
        thread.start()
        assert asked.wait(BOUND)
        assert get(served, "/other").status == 404
        slow.set()
        thread.join(BOUND)


def test_a_server_that_fails_is_no_end_of_metrics(exported: Exported) -> None:
    failing = [True]

    def text() -> bytes:
        if failing:
            raise RuntimeError("no figures")
        return exported.metrics.text()

    with Exporter(Address("127.0.0.1", 0), text) as served:
        assert get(served).status == 500
        failing.clear()
        assert get(served).status == 200
