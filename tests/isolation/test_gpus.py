"""Several GPUs: the one that has the fewest takes the next client, and its program's next ones."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_drivers import make_driver
from supervised import HESPER, PATIENCE, EchoClient, Supervised, environment, first_of
from test_serve import finish, start, streaming

from hesper.api.vtest import VtestOptions
from hesper.errors import OptionError
from hesper.isolation.crew import Crew
from hesper.isolation.gpus import MOST_KNOWN, Gpus
from hesper.isolation.turns import Turns
from hesper.isolation.waiting import WaitingClient
from hesper.portable import Peer, peer_container

Serve = Callable[..., Supervised]
SECOND = 100
"""What workers of the second GPU count from: an echo client is told."""


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Supervised]:
    """A supervisor of two GPUs."""
    gpus = [{}, {"count": SECOND}]
    one = Supervised(tmp_path / "socket", gpus=gpus, memory=1 << 30)
    yield one
    one.process.kill()
    one.end()


def gpu_of(client: EchoClient) -> int:
    return int(client.ask()[1] > SECOND)


def test_the_fewest_take_the_next_and_a_program_stays(two: Supervised) -> None:
    two.ready()
    mine = [two.client() for _ in range(3)]
    assert [gpu_of(each) for each in mine] == [0, 0, 0]
    others = two.clients_of_another_process(2)
    assert [gpu_of(each) for each in others] == [1, 1]
    third = two.clients_of_another_process(1)
    assert gpu_of(third[0]) == 1
    for each in mine[1:]:
        each.close()
    for _ in range(2):
        two.logged("client left")
    # One and three: who is new goes to the first, who was there before to where it was.
    assert gpu_of(two.clients_of_another_process(1)[0]) == 0
    assert gpu_of(two.client()) == 0
    assert two.stop() == 0
    assert two.plain == []


def test_a_gpu_that_cannot_serve_ends_the_server(tmp_path: Path) -> None:
    one = Supervised(tmp_path / "socket", gpus=[{}, {"start": "fail"}])
    assert one.end() == 1
    assert "failed: there is no driver" in "".join(one.plain)


def test_clients_go_where_workers_can_start(tmp_path: Path) -> None:
    """The second GPU's first worker could start, and no other can."""
    one = Supervised(tmp_path / "socket", gpus=[{}, {"count": 0, "start": "crash later"}])
    try:
        one.ready()
        mine = one.client()
        mine.ask()
        other = one.clients_of_another_process(1)[0]
        other.ask()
        one.logged("a worker cannot start")
        others = [one.clients_of_another_process(1)[0] for _ in range(3)]
        assert len({each.ask()[0] for each in others}) == 3
    finally:
        one.process.kill()
        one.end()


def test_no_more_programs_are_remembered_than_bounded() -> None:
    turns = Turns()
    gpus = Gpus(turns, [Crew(turns, "echo_service", {}, "off") for _ in range(2)], 1, None)
    near, far = socket.socketpair()
    with near, far:
        client = WaitingClient(near)
        for process in range(MOST_KNOWN + 10):
            client.peer = Peer(0, process + 1)
            gpus.choose(client, lambda _: 0)
        assert len(gpus._known) == MOST_KNOWN  # noqa: SLF001
    turns.close()


def test_a_program_that_is_in_no_container_has_none() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert peer_container(near) is None


def test_the_programs_of_a_container_have_its_control_group(tmp_path: Path) -> None:
    """A namespace of processes stands for a container; whose user may make none is let off."""
    path = str(tmp_path / "s")
    connect = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "sys.stdin.read()"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        words = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
        process = subprocess.Popen(
            [*words, "python3", "-c", connect, path], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        sock = first_of(listener, process)
        if sock is None:
            pytest.skip(f"no namespaces: {process.communicate()[1]!r}")
        own = [
            line[3:]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::/")
        ]
        with sock:
            assert peer_container(sock) == (own[0] if own else None)
        process.communicate()


def test_each_client_is_told_of_its_own_gpu(
    serve: Serve, stress: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    second = make_driver(tmp_path / "driver", "discrete").manifest
    server = serve("--driver", str(second))
    where = ("--socket", str(server.path))
    about = server.ready()
    assert (about["driver"], [each["driver"] for each in about["others"]]) == ("lvp", ["discrete"])
    staying = start(server, stress, "1", "0")
    streaming(staying)
    shown = finish(start(server, "vulkaninfo", "--summary"))
    assert re.findall(r"deviceType\s*=\s*(\S+)", shown) == ["PHYSICAL_DEVICE_TYPE_DISCRETE_GPU"]
    server.logged("client left")
    beside = start(server, stress, "1", "0")
    streaming(beside)
    (seen,) = json.loads(hesper("top", "--once", "--json", *where, "--interval", "0.1"))
    assert [each["driver"] for each in seen["gpus"]] == ["lvp", "discrete"]
    gpus = {each["process"]: each["gpu"] for each in seen["clients"]}
    assert gpus == {staying.pid: 0, beside.pid: 1}
    (line,) = [line for line in hesper("ps", *where).splitlines() if f" {beside.pid} " in line]
    assert "  1: " in line
    for each in (staying, beside):
        each.kill()
        each.communicate(timeout=PATIENCE)
    assert server.stop() == 0


def hesper(*words: str) -> str:
    done = subprocess.run(
        [*HESPER, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"driver": "a", "more_drivers": ("a",)}, "twice"),
        ({"more_drivers": ("a",)}, "first one"),
        ({"driver": "a", "more_drivers": (7,)}, "names of drivers"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        VtestOptions(**options)  # type: ignore[arg-type]
