"""Sockets: bound, refused, replaced, handed over."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from supervised import HERE, Supervised

from between_calls import Swapped, before_each_call
from hesper.cli import _systemd
from hesper.errors import ListenError
from hesper.isolation.listen import Access, adopt, bind


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_file_has_the_mode_asked_for(tmp_path: Path, mode: int) -> None:
    listener = bind(str(tmp_path / "s"), Access(mode))
    assert stat.S_IMODE(os.stat(listener.path).st_mode) == mode
    listener.close()
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
    listener = bind(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.close()


def test_a_live_server_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    first = bind(path)
    with pytest.raises(ListenError, match=f"cannot listen on {path}: a server is running there"):
        bind(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    first.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("f", "no socket"),
        ("no/such/s", "No such file"),
        ("s" * 200, "too long for a socket's path"),
    ],
)
def test_impossible_paths_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "f").write_text("mine")
    with pytest.raises(ListenError, match=reason):
        bind(str(tmp_path / name))
    assert (tmp_path / "f").read_text() == "mine"


def test_a_file_that_is_no_longer_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = bind(str(path))
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"


def test_sockets_of_systemd_are_used(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        # systemd hands descriptors over as 3 and up, and names the process they are for.
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.executable, [sys.executable, sys.argv[2], '{}'])"
        )
        fd = str(sock.fileno())
        command = [sys.executable, "-c", script, fd, str(HERE / "supervise.py")]
        one = Supervised(path, command, pass_fds=[sock.fileno()])
    one.ready()
    assert one.client().ask()
    assert one.stop() == 0
    assert path.exists()


def test_variables_meant_for_another_process_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert _systemd.sockets() == ([], [])
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize("name", ["path", "abstract"])
def test_systemd_is_told(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    abstract = f"hesper-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.bind("\0" + abstract if name == "abstract" else str(tmp_path / "n"))
        address = "@" + abstract if name == "abstract" else str(tmp_path / "n")
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        _systemd.notify("READY=1")
        assert sock.recv(100) == b"READY=1"


def test_the_umask_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the whole process's: a file that another thread made meanwhile would have it."""
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask was changed"))
    bind(str(tmp_path / "s")).close()


@pytest.mark.parametrize("what", ["socket", "folder"])
def test_a_link_in_its_place_opens_nothing_else(tmp_path: Path, what: str) -> None:
    """Anything may lie there by the time that it gets its mode.

    A container that has the folder for writing can remove the socket, which is then made again.
    """
    private = tmp_path / "private"
    private.write_text("mine")
    private.chmod(0o600)
    folders = [tmp_path / "0"]

    def work() -> None:
        if what == "socket":
            folders[-1].mkdir()
        bind(str(folders[-1] / "s"), Access(0o666)).close()

    def swap() -> None:
        Swapped(folders[-1] / "s" if what == "socket" else folders[-1], private).swap()

    for _ in before_each_call(work, swap, ListenError, OSError):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        folders.append(tmp_path / str(len(folders)))


def test_only_listening_unix_sockets_are_adopted(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        with pytest.raises(ListenError, match="is no listening Unix stream socket"):
            adopt(sock)
        sock.listen()
        adopt(sock).close()
    assert (tmp_path / "s").exists()
    with socket.socket() as sock, pytest.raises(ListenError, match="no listening Unix"):
        adopt(sock)
