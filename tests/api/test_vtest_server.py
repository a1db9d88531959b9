"""`hesper.VtestServer` in somebody else's process: any thread, several, and no trace of them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from traces import PATIENCE, Trace, until

import hesper
from hesper.errors import (
    ListenError,
    NoDriverError,
    OptionError,
    ProfileError,
    StartError,
    StateError,
    StoppedError,
)

pytestmark = pytest.mark.programs  # vulkaninfo
Options = hesper.VtestServer.Options
LAVAPIPE = Options(driver="lavapipe", warm=1)


@pytest.fixture(autouse=True, params=["fork", "spawn"])
def _without_a_trace(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Check that nothing is left, nor changed, by either way to have workers."""
    monkeypatch.setenv("HESPER_WORKERS", request.param)
    before = Trace()
    yield
    before.assert_nothing_left()


def vulkaninfo(server: hesper.VtestServer) -> str:
    """What a real client is told."""
    done = subprocess.run(
        ["vulkaninfo", "--summary"],
        env=os.environ | server.client_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


def test_it_serves(tmp_path: Path) -> None:
    server = hesper.VtestServer(tmp_path / "s", LAVAPIPE)
    assert not server.is_running
    with server as same:
        assert same is server
        assert server.is_running
        assert server.sockets == (str(tmp_path / "s"),)
        assert server.about.driver == "lvp"
        assert "no GPU is used" in server.about.notice
        assert server.about.device in vulkaninfo(server)
        environ = dict(os.environ)
        assert "VTEST_SOCKET_NAME" not in environ
    assert not server.is_running
    assert list(tmp_path.iterdir()) == []


def test_it_says_ready_before_it_serves_anybody(tmp_path: Path) -> None:
    seen: list[tuple[str, int, bool]] = []
    path = tmp_path / "s"

    def ready() -> None:
        seen.append((server.about.driver, server.clients, server.is_running))

    server = hesper.VtestServer(path, LAVAPIPE, on_ready=ready)
    with server:
        assert seen == [("lvp", 0, True)]


def test_two_servers_on_threads(tmp_path: Path) -> None:
    """Started, used and stopped by threads that are not the main one."""
    seen: dict[int, str] = {}
    both = threading.Barrier(2)

    def work(number: int) -> None:
        with hesper.VtestServer(tmp_path / str(number), LAVAPIPE) as server:
            both.wait(PATIENCE)
            seen[number] = vulkaninfo(server)
            both.wait(PATIENCE)

    threads = [threading.Thread(target=work, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert set(seen) == {0, 1}
    assert all("Virtio-GPU Venus (llvmpipe" in text for text in seen.values())


def test_started_here_and_stopped_there_again_and_again(tmp_path: Path) -> None:
    server = hesper.VtestServer(tmp_path / "s", LAVAPIPE)
    for _ in range(4):
        server.start()
        with pytest.raises(StateError, match="runs already; stop"):
            server.start()
        thread = threading.Thread(target=server.stop)
        thread.start()
        thread.join(PATIENCE)
        assert server.wait(0)
        assert not (tmp_path / "s").exists()
        server.stop()


def test_clients_are_counted_and_ended(tmp_path: Path) -> None:
    with hesper.VtestServer(tmp_path / "s", LAVAPIPE) as server:
        assert server.clients == 0
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(str(tmp_path / "s"))
        client.sendall(struct.pack("<II2s", 2, 8, b"x"))
        until(lambda: server.clients == 1, "the client")
        server.stop(at_once=True)
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert server.clients == 0


def test_sockets_that_are_handed_over(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    server = hesper.VtestServer(options=LAVAPIPE, sockets=[listener])
    with pytest.raises(StateError, match="start"):
        server.client_environment()
    with server:
        assert server.sockets == (str(tmp_path / "s"),)
        assert "Virtio-GPU Venus" in vulkaninfo(server)
    assert listener.fileno() == -1
    with pytest.raises(StateError, match="make another server"):
        server.start()


def test_stopped_before_it_is_ready(tmp_path: Path) -> None:
    server = hesper.VtestServer(tmp_path / "s", LAVAPIPE)
    stopper = threading.Timer(0, server.stop)
    until_started = threading.Event()
    begin = server._begin  # noqa: SLF001

    def begin_and_stop() -> object:
        run = begin()
        stopper.start()
        until_started.set()
        return run

    server._begin = begin_and_stop  # type: ignore[method-assign, assignment]  # noqa: SLF001
    try:
        server.start()
    except StoppedError as error:
        assert "was stopped before it was ready" in str(error)  # noqa: PT017
    stopper.join()
    server.stop()
    assert not server.is_running


def test_it_can_be_interrupted_by_a_signal_handler(tmp_path: Path) -> None:
    """The handler runs on the main thread, which waits in `start` or `wait`."""
    server = hesper.VtestServer(tmp_path / "s", LAVAPIPE)
    before = signal.signal(signal.SIGUSR1, lambda *_: server.stop(wait=False))
    try:
        server.start()
        threading.Timer(0, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        assert server.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_driver_that_is_not_there(tmp_path: Path) -> None:
    server = hesper.VtestServer(tmp_path / "s", Options(driver="nobody's"))
    with pytest.raises(NoDriverError, match=r"no driver answers to \"nobody's\"; installed: "):
        server.start()
    assert not (tmp_path / "s").exists()
    assert isinstance(NoDriverError(""), StartError)
    with pytest.raises(NoDriverError):
        server.wait()


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    profile = tmp_path / "none.toml"
    server = hesper.VtestServer(tmp_path / "s", Options(driver="lavapipe", host_profile=profile))
    with pytest.raises(ProfileError, match=str(profile)):
        server.start()


def test_a_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ListenError, match=r"cannot listen on .*/f: there is a file"):
        hesper.VtestServer(tmp_path / "f", LAVAPIPE).start()
    second = hesper.VtestServer(tmp_path / "s", LAVAPIPE)
    with second, pytest.raises(ListenError, match="a server is running there"):
        hesper.VtestServer(tmp_path / "s", LAVAPIPE).start()
    with pytest.raises(OptionError, match="socket=7: must be the path of a Unix socket"):
        hesper.VtestServer(7)  # type: ignore[arg-type]


def test_events_come_by_the_loggers_of_the_standard_library(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those of workers, down to the level that is asked for."""
    server = hesper.VtestServer(tmp_path / "s", LAVAPIPE)
    with caplog.at_level(logging.INFO, "hesper"), server:
        vulkaninfo(server)
        until(lambda: "client left" in caplog.text, "the end of the client")
    connected = [record for record in caplog.records if record.getMessage().startswith("client c")]
    assert connected
    assert connected[0].name.startswith("hesper.")
    assert connected[0].fields["name"].startswith("vulkaninfo")  # type: ignore[attr-defined]
    assert "name=vulkaninfo" in connected[0].getMessage()


def python(script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own that embeds Hesper."""
    package = str(Path(hesper.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env={**os.environ, "PYTHONPATH": package, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_program_that_forgets_to_stop_ends_all_the_same(tmp_path: Path) -> None:
    script = """
        import sys, hesper
        server = hesper.VtestServer(sys.argv[1], hesper.VtestServer.Options(driver="lavapipe"))
        print(server.start().about.driver)
    """
    done = python(script, str(tmp_path / "s"))
    assert (done.returncode, done.stdout) == (0, "lvp\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_fork_of_the_program_stops_nobody(tmp_path: Path) -> None:
    script = """
        import os, sys, hesper
        with hesper.VtestServer(sys.argv[1], hesper.VtestServer.Options(driver="lavapipe")) as one:
            pid = os.fork()
            if pid == 0:
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert not one.wait(0.2)
            print("runs on")
    """
    done = python(script, str(tmp_path / "s"))
    assert (done.returncode, done.stdout) == (0, "runs on\n"), done.stderr


def test_workers_find_the_package_as_the_program_has_found_it(tmp_path: Path) -> None:
    script = """
        import sys
        sys.path.insert(0, sys.argv[2])
        import hesper
        with hesper.VtestServer(sys.argv[1], hesper.VtestServer.Options(driver="lavapipe")):
            print(hesper.__file__.startswith(sys.argv[2]))
    """
    package = str(Path(hesper.__file__).parents[1])
    done = python(script, str(tmp_path / "s"), package, PYTHONPATH="")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
