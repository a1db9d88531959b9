"""Workers behind a server are confined, and the log says what one has died of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from supervised import Supervised, confinement

from hesper.sandbox import namespaces, seccomp
from native import WAYS

Serve = Callable[..., Supervised]
SECRETS = {
    "MY_PASSWORD": "s3cr3t",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t",
    "HESPER_WEB_TOKEN": "s3cr3t",
    "NVIDIA_API_KEY": "s3cr3t",
}

needs_seccomp = pytest.mark.skipif(bool(seccomp.obstacle()), reason=seccomp.obstacle())


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How workers come to be."""
    found: str = request.param
    return found


@pytest.fixture
def echo(tmp_path: Path, way: str) -> Iterator[Callable[..., Supervised]]:
    """Starts a supervisor of echo workers."""
    running = []

    def echo(sandbox: str) -> Supervised:
        environ = {"HESPER_WORKERS": way}
        running.append(Supervised(tmp_path / "socket", environ=environ, sandbox=sandbox))
        running[-1].ready()
        return running[-1]

    yield echo
    for one in running:
        one.process.kill()
        one.end()


@needs_seccomp
def test_every_worker_is_confined(serve: Serve, way: str) -> None:
    server = serve(environ={"HESPER_WORKERS": way, **SECRETS})
    server.ready()
    for pid in [server.logged("worker ready")["worker"] for _ in range(2)]:
        seen = confinement(pid)
        assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")
        assert int(seen["CapEff"], 16) == 0
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > 0
        assert b"s3cr3t" not in Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        cores, addresses = (
            next(line for line in limits if line.startswith(f"Max {what}"))
            for what in ("core file size", "address space")
        )
        assert cores.split()[4:6] == ["0", "0"]
        assert addresses.split()[3].isdecimal()
    if way == "fork":
        template = server.template()
        assert b"s3cr3t" not in Path(f"/proc/{template}/environ").read_bytes()
    assert server.stop() == 0


def test_workers_have_namespaces_where_they_are_lent(serve: Serve, way: str) -> None:
    if why := namespaces.obstacle():
        pytest.skip(why)
    server = serve(environ={"HESPER_WORKERS": way})
    server.ready()
    kinds = {"user", "net", "ipc", "mnt"} | ({"pid"} if way == "fork" else set())
    for pid in [server.logged("worker ready")["worker"] for _ in range(2)]:
        for kind in kinds:
            theirs = os.readlink(f"/proc/{pid}/ns/{kind}")
            assert theirs != os.readlink(f"/proc/{server.process.pid}/ns/{kind}"), kind
    assert server.stop() == 0


def test_it_can_be_turned_off(serve: Serve, way: str) -> None:
    server = serve("--sandbox", "off", environ={"HESPER_WORKERS": way, **SECRETS})
    server.ready()
    pid = server.logged("worker ready")["worker"]
    status = confinement(pid)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("0", "0")
    assert b"s3cr3t" in Path(f"/proc/{pid}/environ").read_bytes()
    assert server.stop() == 0


@needs_seccomp
def test_a_worker_that_dies_of_a_forbidden_call_is_told_of(
    echo: Callable[[str], Supervised],
) -> None:
    server = echo("on")
    client = server.client()
    client.say("call openat2")
    entry = server.logged("worker died")
    assert entry["reason"].startswith("seccomp: openat2 (437) is not allowed to workers")
    assert "--sandbox off" in entry["reason"]
    assert client.gone()


@needs_seccomp
def test_a_plain_death_is_told_of_as_ever(echo: Callable[[str], Supervised]) -> None:
    server = echo("on")
    client = server.client()
    client.say("signal SIGSYS")
    assert server.logged("worker died")["reason"] == "was killed by SIGSYS"
    assert client.gone()


@needs_seccomp
def test_a_report_names_what_would_be_refused_and_refuses_nothing(
    echo: Callable[[str], Supervised],
) -> None:
    server = echo("report")
    client = server.client()
    assert client.ask("call getpgid")
    entry = server.logged("the sandbox would refuse")
    assert (entry["layer"], entry["what"].split()[0]) == ("seccomp", "getpgid")
    client.close()
    assert server.logged("client left")
