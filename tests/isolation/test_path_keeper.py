"""A server notices when its socket's path no longer leads to it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import Supervised, until

from native import native

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a supervisor in a folder of its own."""
    running = []

    def start(**wanted: Any) -> Supervised:
        running.append(Supervised(tmp_path / "own" / "socket", **wanted))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.end()


@pytest.mark.parametrize("watched", [pytest.param(True, marks=native), False])
def test_a_socket_that_is_removed_is_made_again(start: Start, *, watched: bool) -> None:
    one = start(watched=watched, mode=0o660)
    one.ready()
    before = one.client()
    assert before.ask()
    descriptors = one.descriptors()
    one.path.unlink()
    one.logged("the socket was removed, and is made again")
    assert one.client().ask()
    assert before.ask()
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o660
    until(lambda: one.descriptors() <= descriptors + 4, "the old socket to be closed")
    assert one.stop() == 0
    assert not one.path.exists()
    assert one.plain == []


@pytest.mark.parametrize("watched", [pytest.param(True, marks=native), False])
def test_an_impostor_is_named_once(start: Start, *, watched: bool) -> None:
    one = start(watched=watched)
    one.ready()
    before = one.client()
    assert before.ask()
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(one.path.with_name("other")))
        impostor.listen()
        os.rename(one.path.with_name("other"), one.path)
        entry = one.logged(
            "the socket's path leads to something else: clients that come now do not reach us"
        )
        assert (entry["level"], entry["path"]) == ("error", str(one.path))
        assert before.ask()
    # It is the impostor's to keep, until that is gone.
    assert one.path.exists()
    if watched:  # our socket's file is watched, not whatever lies there
        return
    one.path.unlink()
    one.logged("the socket was removed, and is made again")
    assert one.client().ask()
    assert one.stop() == 0
    assert one.plain == []


def test_who_waits_at_a_socket_that_is_removed_is_served(start: Start) -> None:
    one = start(silence=1000.0)
    one.ready()
    waiting = one.client()
    one.path.unlink()
    one.logged("the socket was removed, and is made again")
    assert waiting.ask()


def test_the_folder_is_made_for_those_who_may_connect(start: Start) -> None:
    one = start()
    one.ready()
    assert stat.S_IMODE(one.path.parent.stat().st_mode) == 0o700
    one.stop()
    one.path.parent.rmdir()
    one = start(mode=0o660)
    one.ready()
    assert stat.S_IMODE(one.path.parent.stat().st_mode) == 0o750


def test_a_socket_is_reached_and_kept_through_a_mount_that_is_read_only(start: Start) -> None:
    """As docs/containers.md has it: what a container may do there."""
    one = start()
    one.ready()
    code = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "sock.connect(sys.argv[1])\n"
        "sock.sendall(b'hello\\n')\n"
        "assert sock.recv(100)\n"
        "for attack in (os.unlink, lambda path: os.rename(path, path + '2'),\n"
        "               lambda path: os.symlink('x', path + '3')):\n"
        "    try:\n"
        "        attack(sys.argv[1])\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
    )
    folder = str(one.path.parent)
    script = (
        f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro "{folder}" && exec "$@"'
    )
    unshare = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    words = [*unshare, "sh", "-c", script, "sh", sys.executable, "-c", code, str(one.path)]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lends no mount namespaces")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Read-only file system\n" * 3
    assert one.client().ask()
