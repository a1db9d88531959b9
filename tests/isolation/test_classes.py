"""Classes of clients: who is in which, and what those of one are told they may use."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from supervised import PATIENCE, Supervised, environment

from hesper.api.client import client_environment, find_venus
from hesper.api.gpu import GpuOptions
from hesper.api.vtest import VtestOptions, VtestServer
from hesper.classes import Classes, ClientClass
from hesper.cli._server import parse_class
from hesper.errors import OptionError
from hesper.limits import Limits
from hesper.portable import peer_cgroup

Serve = Callable[..., Supervised]
MIB = 1 << 20
LIMITS = Limits(memory=64 * MIB, devices=4)


def made(*texts: str) -> Classes:
    return Classes(tuple(parse_class(text, LIMITS) for text in texts), LIMITS)


def test_a_class_has_what_it_says_and_else_what_all_have() -> None:
    gold = parse_class("gold:memory=8G,weight=4,user=7,cgroup=/a.slice,cgroup=/b", LIMITS)
    assert (gold.name, gold.weight, gold.users) == ("gold", 4, (7,))
    assert gold.cgroups == ("/a.slice", "/b")
    assert (gold.limits.memory, gold.limits.devices) == (8 << 30, 4)
    assert parse_class("plain", LIMITS).limits == LIMITS


def test_users_have_names() -> None:
    me = pwd.getpwuid(os.getuid())
    assert parse_class(f"mine:user={me.pw_name}", LIMITS).users == (me.pw_uid,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gold:weight=0", "weight"),
        ("gold:weight=1001", "1 to 1000"),
        ("gold:weight=many", "weight"),
        ("gold:memory=8X", "memory=8X"),
        ("gold:memory", "KEY=VALUE"),
        ("gold:colour=red", "colour=red"),
        ("gold:total_memory=8G", "KEY=VALUE"),
        ("gold:user=nobody-has-this-name", "no such user"),
        ("gold:cgroup=relative", "from the root"),
        ("gold:cgroup=/a/../b", "from the root"),
        ("gold:cgroup=/a//b", "from the root"),
        ("gold:cgroup=/a/./b", "from the root"),
        ("gold:cgroup=//", "from the root"),
        ("gold:weight=nan", "weight"),
        ("gold:weight=4,memory=1G,weight=5", "twice"),
        ("gold:memory=8", "memory=8M"),
        ("gold:user=4294967295", "a user's number"),
        ("gold:user=-1", "no such user"),
        (":weight=1", "class"),
        ("go ld:weight=1", "go ld"),
    ],
)
def test_what_cannot_be_is_said(text: str, says: str) -> None:
    with pytest.raises((OptionError, ValueError), match=re.escape(says)):
        parse_class(text, LIMITS)


def test_the_socket_comes_first_then_who_it_is() -> None:
    classes = made("gold:weight=4", "a:user=5", "b:user=5,cgroup=/pods", "default:weight=2")
    assert classes.of("gold", 5, "/pods").name == "gold"
    assert classes.of("", 5, "/pods").name == "a"
    assert classes.of("", 6, "/pods").name == "b"
    assert classes.of("", 6, "/pods/one").name == "b"
    assert classes.of("", 6, "/pods2").name == "default"
    assert made("all:cgroup=/").of("", 6, "/pods").name == "all"
    assert made("pods:cgroup=/pods/").of("", 6, "/pods/one").name == "pods"
    assert classes.of("", 6, None).weight == 2
    assert made("gold:weight=4").of("", 1, None) == ClientClass(name="default", limits=LIMITS)
    with pytest.raises(OptionError, match="silver"):
        classes.named("silver")
    with pytest.raises(OptionError, match="another"):
        made("a", "a")


def test_programs_of_a_machine_are_known_by_their_names() -> None:
    classes = made("game:weight=4,program=a-very-long-name-of-one,program=tux", "slow:program=tux")
    assert classes.of_program("a-very-long-name-of-one").name == "game"
    assert classes.of_program("a-very-long-nam").name == "game"
    assert classes.of_program("a-very-long").name == "default"
    assert classes.of_program("tux").weight == 4
    assert classes.of_program("").name == "default"
    game = ClientClass(name="game", programs=("tux",))
    assert GpuOptions(classes=(game,)).classes == (game,)
    with pytest.raises(OptionError, match="proves nothing"):
        VtestOptions(classes=(game,))
    with pytest.raises(OptionError, match="of its own"):
        GpuOptions(classes=(ClientClass(name="mine", users=(7,)),))


def test_a_worker_is_made_for_the_widest() -> None:
    classes = made("gold:memory=8G,devices=2", "iron:memory=1M")
    assert (classes.widest.memory, classes.widest.devices) == (8 << 30, 4)


def test_a_socket_of_no_class_is_refused(tmp_path: Path) -> None:
    options = VtestOptions(classes=(ClientClass(name="gold"),))
    path = tmp_path / "s"
    with pytest.raises(OptionError, match="silver"):
        VtestServer(path, options, socket_classes={str(path): "silver"})
    with pytest.raises(OptionError, match="none of"):
        VtestServer(path, options, socket_classes={str(tmp_path / "other"): "gold"})


def test_the_control_group_of_a_peer() -> None:
    """It is this process's own; of one that has ended, none."""
    near, far = socket.socketpair()
    with near, far:
        own = [
            line[3:]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::/")
        ]
        assert peer_cgroup(near) == (own[0] if own else None)


def test_nobody_has_the_control_group_of_one_that_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        connect = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
        subprocess.run(["python3", "-c", connect, path], check=True)
        sock, _ = listener.accept()
        with sock:
            assert peer_cgroup(sock) is None


def heap(path: str) -> int:
    """The size of the largest heap that a client there is told of."""
    shown = subprocess.run(
        ["vulkaninfo"],
        env=os.environ | client_environment(find_venus(None), path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    heaps = shown.stdout.partition("memoryHeaps")[2].partition("memoryTypes")[0]
    return max(map(int, re.findall(r"size\s*=\s*(\d+)", heaps)))


def test_clients_are_told_what_their_class_has(serve: Serve, tmp_path: Path) -> None:
    """By their sockets, and by their user."""
    gold = str(tmp_path / "gold")
    arguments = ["--limit", "memory=128M", "--class", "gold:memory=512M,weight=4"]
    server = serve(*arguments, "--socket", f"{gold}:class=gold")
    server.ready()
    assert heap(gold) == 512 * MIB
    assert heap(str(server.path)) == 128 * MIB
    assert server.logged("client connected")["class"] == "gold"
    assert server.stop() == 0


def test_clients_are_told_what_their_users_class_has(serve: Serve) -> None:
    server = serve("--class", f"mine:memory=256M,user={os.getuid()}")
    server.ready()
    assert heap(str(server.path)) == 256 * MIB
    assert server.stop() == 0


def test_weights_count_with_real_clients(serve: Serve, tmp_path: Path) -> None:
    """One of weight 100 beside one of weight 1, both of which always have work.

    That they do not have where others take the processors from them: so it is tried again.
    """
    heavy = str(tmp_path / "heavy")
    server = serve("--class", "heavy:weight=100", "--socket", f"{heavy}:class=heavy")
    server.ready()
    tried = []
    for _ in range(5):
        one, other = rates(heavy, str(server.path))
        tried.append(one / other)
        if tried[-1] > 4:
            break
    # Without weights it is about 1, each time.
    assert tried[-1] > 4, tried
    assert not [entry for entry in server.log if entry["level"] == "error"]
    assert server.stop() == 0


def rates(*paths: str) -> list[float]:
    """How much clients of these sockets do that compute beside each other."""
    clients = []
    for path in paths:
        clients.append(
            subprocess.Popen(
                [sys.executable, "-m", "hesper.bench.client", "share", "--quick"],
                env=environment(**client_environment(find_venus(None), path)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert clients[-1].stdout is not None
        assert any(line == "ready\n" for line in clients[-1].stdout)
    answers = [client.communicate(timeout=PATIENCE)[0] for client in start_all(clients)]
    return [json.loads(answer.splitlines()[-1])["figures"]["steps"] for answer in answers]


def start_all(clients: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Let all go on that are ready."""
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
    return clients


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--class", "gold:colour=red"], "colour=red"),
        (["--class", "a", "--class", "a"], "another of that name"),
        (["--socket", "/tmp/x:class=gold"], "no such class"),
        (["--socket", "/tmp/x:class="], "PATH:class=NAME"),
        (["--socket", ""], "must be the path"),
        (["--driver", "lvp", "--driver", "lvp"], "--driver lvp: stands there twice"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "from hesper.cli import main; main()", "serve"]
    command += ["--socket", str(tmp_path / "s"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode != 0
    assert says in " ".join((ended.stdout + ended.stderr).replace("│", " ").split())
    assert "Traceback" not in ended.stderr
