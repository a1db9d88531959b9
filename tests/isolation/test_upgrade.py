"""A new server takes an old one's place: nobody who comes meanwhile is lost, nor who is there."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from supervised import HESPER, PATIENCE, Supervised, alive, environment, until
from test_serve import finish, start, streaming

from hesper.api.vtest import VtestOptions
from hesper.classes import ClientClass
from hesper.cli import serve as serve_command
from hesper.cli import upgrade
from hesper.cli._take_over import arguments_for
from hesper.observe.asking import servers
from hesper.observe.wire import Sockets

Serve = Callable[..., Supervised]
HELLO = struct.pack("<II5sIII", 5, 8, b"loop\0", 1, 11, 3)
"""CREATE_RENDERER and PROTOCOL_VERSION, which a worker answers with twelve bytes."""
GIVE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3);"
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='gold');"
    "os.execvp(sys.argv[2], sys.argv[2:])"
)
"""Runs a command with a listening socket, as systemd does."""


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where status sockets are: a path that is short enough."""
    folder = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


class Comers:
    """Clients that connect one after the other, on several threads, until they are stopped."""

    def __init__(self, path: Path, threads: int = 3) -> None:
        self.served = 0
        self.lost: list[str] = []
        self._path = path
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _come(self) -> None:
        while not self._over.is_set():
            try:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(PATIENCE)
                    sock.connect(str(self._path))
                    sock.sendall(HELLO)
                    answer = sock.recv(12, socket.MSG_WAITALL)
                problem = "" if len(answer) == 12 else f"{len(answer)} bytes"
            except OSError as error:
                problem = repr(error)
            with self._lock:
                self.served += not problem
                self.lost += [problem] if problem else []

    def more(self, count: int) -> None:
        """Wait until so many more have been served, or one has been lost."""
        wanted = self.served + count
        until(lambda: self.served >= wanted or self.lost, "more clients")

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def hesper(*words: str, **environ: str) -> str:
    """What a command says; what it starts may have its standard error for longer than it lives."""
    done = subprocess.run(
        [*HESPER, *words],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        env=environment(**environ),
        check=True,
    )
    return done.stdout


def test_nobody_is_lost_while_a_server_takes_anothers_place(
    serve: Serve, stress: str, tmp_path: Path
) -> None:
    metrics = ("--metrics", f"unix:{tmp_path / 'metrics'}")
    old = serve(*metrics)
    old.ready()
    staying = start(old, stress, "2", "0")
    streaming(staying)
    comers = Comers(old.path)
    try:
        comers.more(5)
        new = serve("--take-over", str(old.path), "--mode", "0660", *metrics)
        new.ready()
        assert old.logged("retired: another server takes clients")["clients"] >= 1
        comers.more(10)
    finally:
        comers.stop()
    assert comers.lost == []
    # The new one has served some, and the old one none any more.
    assert new.logged("client connected")["name"] == "loop"
    with servers(old.path) as both:
        reports = {report.process: report for report in (each.report() for each in both)}
    assert reports[old.process.pid].retired
    assert not reports[new.process.pid].retired
    (client,) = reports[old.process.pid].clients
    assert all(each.context > client.context for each in reports[new.process.pid].clients)
    assert old.path.stat().st_mode & 0o777 == 0o660
    assert staying.poll() is None
    # By its number, whichever of both has it.
    assert hesper("kill", str(client.context), "--socket", str(old.path)).startswith("ended")
    assert staying.wait(PATIENCE) != 0
    staying.communicate(timeout=PATIENCE)
    assert old.end() == 0
    assert old.path.exists()
    finish(start(new, stress, "1", "1"))
    assert new.stop() == 0
    assert not old.path.exists()
    for one in (old, new):
        assert not [each for each in one.log if each["event"] == "internal error"]


def test_who_cannot_serve_takes_nobodys_place(serve: Serve, stress: str) -> None:
    old = serve()
    old.ready()
    new = serve("--take-over", str(old.path), driver="nosuch")
    assert new.end() == 1
    assert old.path.exists()
    finish(start(old, stress, "1", "1"))
    with servers(old.path) as (one,):
        assert not one.report().retired
    assert old.stop() == 0
    assert not old.path.exists()


def test_who_is_not_waited_for_takes_nobodys_place(serve: Serve, stress: str) -> None:
    """As after a reload that systemd has ended: the old one's end would be the service's."""
    old = serve()
    old.ready()
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["--take-over", str(old.path), "--socket", str(old.path), "--driver", "lavapipe"]
    new = subprocess.run(
        [*HESPER, "serve", *arguments, "--ready-fd", str(writing)],
        pass_fds=[writing],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    os.close(writing)
    assert new.returncode == 1
    assert new.stderr.endswith("waits no longer; the old one goes on\n")
    assert "cannot see this server" not in new.stderr
    with servers(old.path) as (one,):
        assert not one.report().retired
    finish(start(old, stress, "1", "1"))
    assert old.stop() == 0


def test_sockets_that_the_new_one_does_not_want_are_removed(serve: Serve, tmp_path: Path) -> None:
    gold, iron = tmp_path / "gold", tmp_path / "iron"
    old = serve("--class", "gold:weight=2", "--socket", f"{gold}:class=gold")
    old.ready()
    new = serve(
        *("--take-over", str(gold), "--class", "iron:weight=2", "--socket", f"{iron}:class=iron")
    )
    new.ready()
    assert old.end() == 0
    assert not gold.exists()
    for path in (old.path, iron):
        Comers(path, 1).stop()
        assert path.exists()
    assert new.stop() == 0
    assert not iron.exists()


def test_there_has_to_be_a_server(serve: Serve, tmp_path: Path) -> None:
    new = serve("--take-over", str(tmp_path / "nowhere"))
    assert new.end() == 1
    assert "no server of yours listens on" in "".join(new.plain)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd hears, at `notify`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Supervised]:
    """A server that was started with a socket, as by systemd."""
    path = tmp_path / "s"
    command = [*HESPER, "serve", "--driver", "lavapipe", "--json", "--class", "gold:weight=3"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        words = [sys.executable, "-c", GIVE, str(sock.fileno()), *command]
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        server = Supervised(path, words, [sock.fileno()], environ)
    yield server
    server.process.kill()
    server.end()


def test_a_service_is_upgraded_with_the_socket_that_systemd_has_given_it(
    told: socket.socket, given: Supervised, tmp_path: Path
) -> None:
    given.ready()
    assert told.recv(100) == b"READY=1"
    said = hesper("upgrade", "--socket", str(given.path), NOTIFY_SOCKET=str(tmp_path / "notify"))
    # The new server, which says so itself, is the service's main process from now on.
    assert told.recv(100) == b"READY=1"
    word, _, pid = told.recv(100).decode().partition("=")
    assert word == "MAINPID"
    new = int(pid)
    try:
        assert f"process {new} takes clients on {given.path}" in said
        assert given.end() == 0
        comers = Comers(given.path, 1)
        comers.more(1)
        comers.stop()
        assert comers.lost == []
        with servers(given.path) as (one,):
            (handed,), _ = one.sockets()
        handed.sock.close()
        assert (handed.path, handed.kind, handed.identity) == (str(given.path), "gold", None)
    finally:
        os.kill(new, signal.SIGTERM)
    assert told.recv(100) == b"STOPPING=1"
    # systemd's file stays.
    assert given.path.exists()
    until(lambda: not alive(new), "the end of the new server")


def test_a_socket_of_systemds_that_is_called_as_no_class_is_refused(tmp_path: Path) -> None:
    """Its clients would be in the default one, with other limits than its unit promises."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        for arguments, says in (
            ([], "is called gold (FileDescriptorName=), and there is no class of that name"),
            (["--class", "iron"], "say --class gold:..."),
        ):
            serve_ = [*HESPER, "serve", "--driver", "lavapipe", *arguments]
            ended = subprocess.run(
                [sys.executable, "-c", GIVE, str(sock.fileno()), *serve_],
                pass_fds=[sock.fileno()],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert ended.returncode == 1
            assert says in ended.stderr


def test_a_unit_that_says_no_name_has_none() -> None:
    options = VtestOptions(classes=(ClientClass(name="gold"),))
    names = {"/a": "gold", "/b": "hesper.socket", "/c": "", "/d": "default"}
    assert serve_command._classes_of(names, options) == {  # noqa: SLF001
        "/a": "gold",
        "/d": "default",
    }


def test_the_new_server_is_nobodys_child(tmp_path: Path) -> None:
    """To stop a service whose main process is not its own child, systemd kills all at once."""
    path = tmp_path / "s"
    new = upgrade._start(  # noqa: SLF001
        ["serve", "--driver", "lavapipe", "--no-status", "--socket", str(path)], str(tmp_path)
    )
    try:
        shown = subprocess.run(
            ["ps", "-o", "ppid=", "-p", str(new)], capture_output=True, text=True, check=True
        )
        assert int(shown.stdout) != os.getpid()
        assert path.exists()
    finally:
        os.kill(new, signal.SIGTERM)
    until(lambda: not alive(new), "the end of the new server")


def test_where_it_cannot_serve_that_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        upgrade._start(["serve", "--driver", "nosuch"], str(tmp_path))  # noqa: SLF001
    said = capfd.readouterr().err
    assert "nosuch" in said
    assert "the new server cannot serve, it says why above; the old one goes on" in said


def test_the_arguments_are_the_old_ones() -> None:
    words = ["serve", "--ready-fd", "7", "--json", "--take-over=/a", "--driver", "lvp"]
    about = Sockets([], words, "/")
    assert arguments_for(about, "/b") == [
        *("serve", "--json", "--driver", "lvp", "--take-over", "/b")
    ]  # fmt: skip
