"""What QEMU's monitor is asked and told, with a monitor of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import queue
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pattern import Pattern

from hesper import log
from hesper.display.access.places import Access, UnixPath, listen_on
from hesper.display.input import Key
from hesper.display.scanout import Display, Size
from hesper.vm import accepting, monitor
from hesper.vm.monitor import EMULATED_SLOWNESS, Monitor
from hesper.vm.monitor_server import MonitorServer
from hesper.vm.outputs import OutputOptions, Outputs
from hesper.vm.pacing import MAX_WAITING, PRESS_SECONDS

PATIENCE = 30.0
GREETING = {"QMP": {"version": {"qemu": {"major": 11, "minor": 1, "micro": 0}}, "capabilities": []}}


class FakeQemu:
    """QEMU's end of the monitor, for one connection.  Source: QEMU's QMP specification."""

    def __init__(
        self, path: Path, *, connects: bool = False, answers: Mapping[str, object] | None = None
    ) -> None:
        """Listen, or connect to who listens.

        answers: what it says to some commands instead of what QEMU would.
        """
        self.state = "running"
        self.emulates = False
        self.is_old = False
        """Whether it has never heard of query-accelerators."""
        self._answers = answers or {}
        self.orders: queue.Queue[dict[str, Any]] = queue.Queue()
        """What was asked, but for the states."""
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None
        sock = socket.socket(socket.AF_UNIX)
        if connects:
            sock.connect(str(path))
            self._connection = sock
        else:
            sock.bind(str(path))
            sock.listen()
            self._listener = sock
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        if self._listener is not None:
            self._connection, _ = self._listener.accept()
            self._listener.close()
        assert self._connection is not None
        self._say(GREETING)
        for order in self._requests(self._connection):
            answers: dict[str, Any] = {
                "qmp_capabilities": {},
                "query-accelerators": {"enabled": "tcg" if self.emulates else "hvf"},
                "query-kvm": {"enabled": not self.emulates, "present": True},
                "query-status": {"status": self.state, "running": self.state == "running"},
            }
            answers |= self._answers
            result: dict[str, Any] = {"return": answers.get(order["execute"], {})}
            if self.is_old and order["execute"] == "query-accelerators":
                result = {"error": {"class": "CommandNotFound", "desc": "never heard of"}}
            self._say({**result, "id": order.get("id")})
            if order["execute"] not in answers:
                self.orders.put(order)

    @staticmethod
    def _requests(connection: socket.socket) -> Iterator[dict[str, Any]]:
        """JSON objects, with nothing between them."""
        decoder, text = json.JSONDecoder(), ""
        while data := connection.recv(65536):
            text += data.decode()
            with contextlib.suppress(json.JSONDecodeError):
                while text:
                    request, end = decoder.raw_decode(text)
                    text = text[end:].lstrip()
                    yield request

    def _say(self, message: dict[str, Any]) -> None:
        assert self._connection is not None
        # What is under way when the connection ends has nobody to reach.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._connection.sendall(json.dumps(message).encode() + b"\r\n")

    def stop(self, state: str) -> None:
        """Stand still because of something."""
        self.state = state
        self.tell("STOP")

    def tell(self, event: str) -> None:
        """Say that something has happened."""
        stamp = {"seconds": 0, "microseconds": 0}
        self._say({"event": event, "timestamp": stamp})

    def next_order(self) -> str:
        """Wait for an order, and return its command."""
        return str(self.orders.get(timeout=PATIENCE)["execute"])

    def close(self) -> None:
        """End."""
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)
            self._thread.join(PATIENCE)
            self._connection.close()


class Scene:
    """A monitor that is connected."""

    def __init__(self, folder: Path, outputs: Outputs, display: Display) -> None:
        """Connect, and wait until orders get through."""
        self.said: queue.Queue[str] = queue.Queue()
        """What was logged."""
        self.broken = threading.Event()
        self.qemu = FakeQemu(folder / "qmp")
        self.display = display
        self.monitor = Monitor(str(folder / "qmp"), display, outputs, self.broken.set)
        self.monitor.start()
        self.monitor.order("query-name")
        assert self.qemu.next_order() == "query-name"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A machine that runs, as far as its monitor knows."""
    monkeypatch.setattr(monitor, "RESUME_SECONDS", 0.01)
    display = Display(1)
    with Outputs(display, OutputOptions(vnc=None, web=None), list) as outputs:
        made = Scene(tmp_path, outputs, display)
        monkeypatch.setattr(log, "_sink", lambda _level, _name, event, _: made.said.put(event))
        yield made
        made.qemu.close()


def test_keys_are_passed_on_in_order_one_at_a_time(scene: Scene) -> None:
    scene.display[0].send_input([Key(30, True), Key(30, False), Key(1 << 10, True)])
    scene.display[0].send_input([Key(31, True), Key(31, False)])
    sent = []
    for _ in range(4):
        order = scene.qemu.orders.get(timeout=PATIENCE)
        assert order["execute"] == "input-send-event"
        ((event),) = order["arguments"]["events"]
        sent.append((event["data"]["key"]["data"], event["data"]["down"]))
    assert sent == [("a", True), ("a", False), ("s", True), ("s", False)]


def test_a_machine_that_goes_on_alone_has_no_key_down(tmp_path: Path) -> None:
    display, path = Display(1), tmp_path / "qmp"
    qemu = FakeQemu(path)
    with Outputs(display, OutputOptions(vnc=None, web=None), list) as outputs:
        Monitor(str(path), display, outputs).start()
        display[0].send_input([Key(42, True)])
        (event,) = qemu.orders.get(timeout=PATIENCE)["arguments"]["events"]
        assert event["data"]["down"]
    (event,) = qemu.orders.get(timeout=PATIENCE)["arguments"]["events"]
    assert event["data"] == {"down": False, "key": {"type": "qcode", "data": "shift"}}
    qemu.close()


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("emulates", [False, True])
def test_a_guest_whose_processors_are_emulated_has_more_time_for_each_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, emulates: bool, is_old: bool
) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    display, path = Display(1), tmp_path / "qmp"
    with Outputs(display, OutputOptions(vnc=None, web=None), list) as outputs:
        qemu = FakeQemu(path)
        qemu.emulates, qemu.is_old = emulates, is_old
        Monitor(str(path), display, outputs).start()
        typed(display, 30)
        for _ in range(2):
            assert qemu.next_order() == "input-send-event"
        qemu.close()
    wanted = PRESS_SECONDS * (EMULATED_SLOWNESS if emulates else 1)
    assert wanted in waits
    assert set(waits) <= {wanted, monitor.RETRY_SECONDS, 0}


def test_more_input_than_a_guest_takes_is_said_to_be_lost(scene: Scene) -> None:
    for _ in range(MAX_WAITING):
        scene.display[0].send_input([Key(30, True), Key(30, False)])
    assert "input is lost" in scene.said.get(timeout=PATIENCE)


def test_a_machine_whose_disk_is_full_goes_on_when_there_is_room(scene: Scene) -> None:
    scene.qemu.stop("io-error")
    assert "cannot be written" in scene.said.get(timeout=PATIENCE)
    assert scene.qemu.next_order() == "cont"
    # It is still full; what people do gets through meanwhile.
    scene.monitor.power_down()
    assert {scene.qemu.next_order() for _ in range(10)} == {"cont", "system_powerdown"}
    scene.qemu.state = "running"
    assert "no longer waits" in scene.said.get(timeout=PATIENCE)


def test_a_pause_that_was_wanted_lasts(scene: Scene) -> None:
    scene.qemu.stop("paused")
    for _ in range(3):
        scene.monitor.order("query-name")
        assert scene.qemu.next_order() == "query-name"
    assert scene.said.empty()
    assert not scene.broken.is_set()


def test_a_machine_that_starts_over_shows_nothing_until_its_driver_does(scene: Scene) -> None:
    Pattern(Size(300, 200)).show_on(scene.display[0])
    news = threading.Event()
    subscription = scene.display[0].subscribe(news.set)
    assert subscription.take().surface is not None
    news.clear()
    scene.qemu.tell("RESET")
    assert news.wait(PATIENCE)
    update = subscription.take()
    assert (update.surface, update.cursor) == (None, None)


def test_an_accelerator_that_fails_ends_all(scene: Scene) -> None:
    scene.qemu.stop("internal-error")
    assert "accelerator" in scene.said.get(timeout=PATIENCE)
    assert scene.broken.wait(PATIENCE)


def typed(display: Display, code: int) -> None:
    """A viewer presses a key."""
    display[0].send_input([Key(code, True), Key(code, False)])


def test_one_qemu_after_the_other_connects_its_monitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets what is typed while it is there, and whoever is no QEMU keeps nobody away."""
    said: queue.Queue[str] = queue.Queue()
    path = tmp_path / "monitor"
    display = Display(1)
    sockets = listen_on(UnixPath(path), local=True, access=Access(0o660))
    assert path.stat().st_mode & 0o777 == 0o660
    with Outputs(display, OutputOptions(vnc=None, web=None), list) as outputs:
        monkeypatch.setattr(log, "_sink", lambda _level, _name, event, _: said.put(event))
        MonitorServer(sockets.sockets[0], display, outputs).start()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(path))
            stranger.sendall(b"hello\r\n")
            assert "is no QEMU" in said.get(timeout=PATIENCE)
        for code, name in ((30, "a"), (31, "s")):
            typed(display, 16)  # nobody is there
            qemu = FakeQemu(path, connects=True)
            assert "is connected" in said.get(timeout=PATIENCE)
            typed(display, code)
            for down in (True, False):
                (event,) = qemu.orders.get(timeout=PATIENCE)["arguments"]["events"]
                assert (event["data"]["key"]["data"], event["data"]["down"]) == (name, down)
            qemu.close()
            assert "has gone" in said.get(timeout=PATIENCE)
    sockets.close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("running", ""),
        ("paused", ""),
        ("internal-error", "the accelerator cannot run this guest: choose another with --accel"),
        ("io-error", "a disk of the machine cannot be written: make room where its image lies"),
    ],
)
def test_a_machine_is_asked_what_is_wrong(tmp_path: Path, state: str, reason: str) -> None:
    qemu = FakeQemu(tmp_path / "monitor")
    qemu.state = state
    assert monitor.what_is_wrong(str(tmp_path / "monitor")) == reason
    qemu.close()
    assert monitor.what_is_wrong(str(tmp_path / "monitor")) == ""


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("query-status", {}),
        ("query-status", [[]]),
        ("query-accelerators", 7),
        ("query-accelerators", {"on": None}),
    ],
)
def test_answers_that_are_none_keep_no_qemu_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, answer: object
) -> None:
    said: queue.Queue[str] = queue.Queue()
    display = Display(1)
    sockets = listen_on(UnixPath(tmp_path / "monitor"), local=True)
    with Outputs(display, OutputOptions(vnc=None, web=None), list) as outputs:
        monkeypatch.setattr(log, "_sink", lambda _level, _name, event, _: said.put(event))
        MonitorServer(sockets.sockets[0], display, outputs).start()
        odd = FakeQemu(tmp_path / "monitor", connects=True, answers={command: answer})
        while "what it should not" not in said.get(timeout=PATIENCE):
            pass
        odd.close()
        good = FakeQemu(tmp_path / "monitor", connects=True)
        while "is connected" not in said.get(timeout=PATIENCE):
            pass
        typed(display, 30)
        assert good.next_order() == "input-send-event"
        good.close()
    sockets.close()


def test_a_qemu_that_comes_when_descriptors_are_short_is_served_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(socket.socket):
        """Has no descriptor at first."""

        lacks = 3

        def accept(self) -> tuple[socket.socket, Any]:
            if self.lacks:
                self.lacks -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.01)
    display = Display(1)
    with Short(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "monitor"))
        listener.listen()
        listener.setblocking(False)
        with Outputs(display, OutputOptions(vnc=None, web=None), list) as outputs:
            monitor = MonitorServer(listener, display, outputs)
            monitor.start()
            qemu = FakeQemu(tmp_path / "monitor", connects=True)
            monitor.order("query-name")
            assert qemu.next_order() == "query-name"
            qemu.close()
        assert listener.lacks == 0


@pytest.mark.parametrize("fails", [False, True])
def test_outputs_keep_nothing_of_what_has_ended(
    monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """A guest has something begun whenever it starts over; what fails is said."""
    said: queue.Queue[str] = queue.Queue()
    tasks: queue.Queue[weakref.ref[Any]] = queue.Queue()

    async def short() -> None:
        tasks.put(weakref.ref(asyncio.current_task()))
        if fails:
            raise KeyError("status")

    with Outputs(Display(1), OutputOptions(vnc=None, web=None), list) as outputs:
        monkeypatch.setattr(log, "_sink", lambda _level, _name, event, _: said.put(event))
        for _ in range(20):
            outputs.spawn(short)
        begun = [tasks.get(timeout=PATIENCE) for _ in range(20)]
        deadline = time.monotonic() + PATIENCE
        while any(each() is not None for each in begun):
            assert time.monotonic() < deadline
            time.sleep(0.01)
            gc.collect()
        if fails:
            assert "has failed" in said.get(timeout=PATIENCE)


def test_hesper_that_ends_as_qemu_does_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to end while it takes leave of QEMU, it does not wait for another."""
    leaving = threading.Event()

    async def watch(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            leaving.set()
            while not any(task.cancelling() for task in asyncio.all_tasks() if is_server(task)):
                await asyncio.sleep(0)

    def is_server(task: asyncio.Task[Any]) -> bool:
        return getattr(task.get_coro(), "__qualname__", "") == "MonitorServer._run"

    monkeypatch.setattr(Monitor, "_watch", watch)
    display = Display(1)
    sockets = listen_on(UnixPath(tmp_path / "monitor"), local=True)
    outputs = Outputs(display, OutputOptions(vnc=None, web=None), list)
    with outputs:
        MonitorServer(sockets.sockets[0], display, outputs).start()
        qemu = FakeQemu(tmp_path / "monitor", connects=True)
        typed(display, 30)
        while not qemu.orders.qsize():
            typed(display, 30)
        qemu.close()
        assert leaving.wait(PATIENCE)
    sockets.close()
