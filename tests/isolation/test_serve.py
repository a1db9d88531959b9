"""`hesper serve` with real Venus clients."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from supervised import HESPER, PATIENCE, Supervised, alive, environment, until

from hesper.api.client import client_environment, find_venus
from hesper.portable import process_usage
from native import WAYS, native

Serve = Callable[..., Supervised]
WARM = 2


def start(server: Supervised, *command: str) -> subprocess.Popen[str]:
    """Start a client of the server."""
    variables = os.environ | client_environment(find_venus(None), str(server.path))
    return subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(client: subprocess.Popen[str]) -> str:
    """Wait for a client that must succeed; return what it printed."""
    output, _ = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, output
    return output


def streaming(client: subprocess.Popen[str]) -> None:
    """Wait until a `stress` client is in the middle of it."""
    assert client.stdout is not None
    while line := client.stdout.readline():
        if line == "streaming\n":
            return
    raise AssertionError(f"the client ended with {client.wait(PATIENCE)}")


def idle(server: Supervised) -> int:
    """Wait until only the workers that wait for clients are there; return the descriptors."""
    for _ in range(WARM):
        server.logged("worker ready")
    assert len(server.children()) == WARM
    return server.descriptors()


def test_vulkaninfo_sees_the_driver(serve: Serve) -> None:
    server = serve()
    device = server.ready()["device"]
    assert f"Virtio-GPU Venus ({device})" in finish(start(server, "vulkaninfo", "--summary"))
    assert server.logged("client connected")["name"] == "vulkaninfo"
    server.logged("client left")
    assert server.stop() == 0


def test_eight_clients_at_once_with_three_threads_each(serve: Serve, stress: str) -> None:
    server = serve()
    server.ready()
    descriptors = idle(server)
    clients = [start(server, stress, "3", "5") for _ in range(8)]
    for client in clients:
        assert "streaming" in finish(client)
    assert not [entry for entry in server.log if entry["level"] == "error"]
    until(lambda: len(server.children()) == WARM, "the workers to be gone")
    until(lambda: server.descriptors() == descriptors, "the descriptors to be as before")


def test_two_hundred_threads_make_pipelines_at_the_same_time(serve: Serve, pipelines: str) -> None:
    server = serve()
    server.ready()
    assert finish(start(server, pipelines, "200")) == "200 pipelines\n"
    assert not [entry for entry in server.log if entry["level"] == "error"]


@pytest.mark.timeout(600)
def test_a_hundred_clients_killed_in_mid_stream(serve: Serve, stress: str) -> None:
    server = serve()
    server.ready()
    descriptors = idle(server)
    resident = 0
    for turn in range(100):
        client = start(server, stress, "2", "0")
        streaming(client)
        client.kill()
        client.communicate(timeout=PATIENCE)
        if turn == 20:
            resident = process_usage(server.process.pid).resident
    finish(start(server, stress, "2", "2"))
    until(lambda: len(server.children()) == WARM, "the workers to be gone")
    until(lambda: server.descriptors() == descriptors, "the descriptors to be as before")
    assert process_usage(server.process.pid).resident < resident + (4 << 20)
    assert server.stop() == 0


def test_a_killed_worker_takes_its_client_and_nobody_else(serve: Serve, stress: str) -> None:
    server = serve()
    server.ready()
    first, second = start(server, stress, "2", "0"), start(server, stress, "2", "0")
    streaming(first)
    streaming(second)
    # Not by what they use: where much else runs, one that gets ready uses more.
    os.kill(server.logged("client has a worker")["worker"], signal.SIGKILL)
    dead = server.logged("worker died")
    assert dead["reason"] == "was killed by SIGKILL"
    by_pid = {first.pid: first, second.pid: second}
    other = by_pid[({first.pid, second.pid} - {dead["pid"]}).pop()]
    # Mesa ends a client that has lost its server.
    assert by_pid[dead["pid"]].wait(PATIENCE) != 0
    finish(start(server, stress, "1", "1"))
    assert other.poll() is None
    other.kill()
    for client in by_pid.values():
        client.communicate(timeout=PATIENCE)


def test_garbage_on_the_socket_harms_nobody(serve: Serve, stress: str) -> None:
    server = serve("--handshake-timeout", "20")
    server.ready()
    descriptors = idle(server)
    honest = start(server, stress, "2", "0")
    streaming(honest)
    hello = struct.pack("<II5sIIIIII", 5, 8, b"evil\0", 1, 11, 3, 1, 17, 4)
    for seed in range(40):
        generator = random.Random(seed)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(server.path))
            stream = generator.randbytes(generator.randrange(1, 3000))
            if seed % 2:
                # Random Venus commands on the context's own stream.
                words = [generator.randrange(0, 330), 1, *generator.choices(range(5), k=60)]
                body = struct.pack(f"<I6I{len(words)}I", 1, 0, 7, len(words), 7, 0, 0, *words)
                stream = hello + struct.pack("<II", len(body) // 4, 24) + body
            sock.sendall(stream)
            if seed % 3 == 0:
                sock.shutdown(socket.SHUT_WR)
    assert honest.poll() is None
    honest.kill()
    honest.communicate(timeout=PATIENCE)
    finish(start(server, stress, "2", "2"))
    until(lambda: len(server.children()) == WARM, "the workers to be gone")
    until(lambda: server.descriptors() == descriptors, "the descriptors to be as before")
    assert not [
        entry for entry in server.log if entry["event"] in ("worker died", "internal error")
    ]
    assert server.stop() == 0


def test_a_stalled_client_is_shown_the_door(serve: Serve) -> None:
    server = serve("--silence-timeout", "0.2")
    server.ready()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.path))
        with contextlib.suppress(ConnectionError):  # it may have been shown out before that
            sock.sendall(b"\0\0\0")
            assert sock.recv(1) == b""
    reason = server.logged("client refused")["reason"]
    assert reason == "it has not introduced itself in 0.2 s"

    def has_begun() -> bool:
        """Say half of it and wait for the end; whether that was in time to have a worker."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(server.path))
            with contextlib.suppress(ConnectionError):
                sock.sendall(struct.pack("<II2s", 2, 8, b"x\0"))
                assert sock.recv(1) == b""
        return any(entry["event"] == "client has a worker" for entry in server.log)

    until(has_begun, "a client that is in time")
    entry = server.logged("client ended")
    assert entry["reason"] == "header: the client was silent for 0.2 s in its handshake"
    assert entry["name"] == "x"


def test_a_handshake_has_a_bound(serve: Serve) -> None:
    server = serve("--handshake-timeout", "0.2", "--silence-timeout", "0")
    server.ready()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.path))
        sock.sendall(struct.pack("<II2s", 2, 8, b"x\0"))
        assert sock.recv(1) == b""
    assert server.logged("client ended")["reason"] == "no complete handshake in 0.2 s"


def test_a_limit_ends_a_client_that_wants_more(serve: Serve, stress: str) -> None:
    server = serve("--limit", "objects=10")
    server.ready()
    client = start(server, stress, "1", "1")
    output, _ = client.communicate(timeout=PATIENCE)
    assert client.returncode != 0, output
    assert server.logged("client ended")["reason"].endswith("more than 10 objects")


def test_an_instance_too_many_fails_and_a_place_makes_it_work(serve: Serve, stress: str) -> None:
    server = serve("--max-clients", "1", environ={"HESPER_WORKERS": "fork"})
    server.ready()
    first = start(server, stress, "1", "0")
    streaming(first)
    second = start(server, stress, "1", "1")
    output, _ = second.communicate(timeout=PATIENCE)
    # VK_ERROR_OUT_OF_HOST_MEMORY, in time: another driver must not take its place unseen.
    assert "vkCreateInstance: VkResult -1\n" in output
    refused = server.logged("client refused")
    assert (refused["level"], refused["reason"]) == ("error", "all places are taken")
    first.kill()
    first.communicate(timeout=PATIENCE)
    # Its place is free when its worker has ended, which may take longer than the next one waits.
    server.logged("client left")
    finish(start(server, stress, "1", "1"))


@native
def test_the_template_is_a_child_of_the_main_thread(serve: Serve) -> None:
    server = serve(environ={"HESPER_WORKERS": "fork"})
    server.ready()
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children == [str(server.template())]
    assert server.stop() == 0


@pytest.mark.parametrize("way", WAYS)
def test_workers_come_to_be_either_way(serve: Serve, stress: str, way: str) -> None:
    server = serve(environ={"HESPER_WORKERS": way})
    server.ready()
    assert bool(server.template()) == (way == "fork")
    finish(start(server, stress, "2", "2"))
    if way == "fork":
        # Fit to be forked: no Vulkan, no threads; with what lavapipe's compiler takes.
        template = Path(f"/proc/{server.template()}")
        until(lambda: "libLLVM" in (template / "maps").read_text(), "the compiler")
        assert "libvulkan.so" not in (template / "maps").read_text()
        assert len(list((template / "task").iterdir())) == 1
    assert server.stop() == 0


def own(pid: int) -> int:
    """Bytes of memory that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def holding(server: Supervised) -> subprocess.Popen[str]:
    """A client that has a device and does nothing."""
    client = subprocess.Popen(
        [sys.executable, "-m", "hesper.bench.client", "hold"],
        env=environment(**client_environment(find_venus(None), str(server.path))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    assert any(line.startswith("{") for line in client.stdout)
    return client


@native
def test_a_worker_has_little_memory_of_its_own(serve: Serve) -> None:
    """Whoever waits has next to none, who serves what the driver makes for a device."""
    server = serve("--warm", "3", environ={"HESPER_WORKERS": "fork"})
    server.ready()
    for _ in range(3):
        server.logged("worker ready")
    workers = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.callback(holding(server).kill)
            workers.append(server.logged("client has a worker")["worker"])
        # The first one of all has tried drivers, which leaves it with more.
        assert min(map(own, workers)) < 20 << 20
        waiting = [pid for pid in server.children() if pid not in workers]
        assert min(map(own, waiting)) < 8 << 20
    assert server.stop() == 0


def test_only_the_owner_may_connect_unless_told(serve: Serve) -> None:
    server = serve()
    server.ready()
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert server.stop() == 0
    server = serve("--mode", "0660")
    server.ready()
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660


def test_ready_is_said_everywhere_it_is_wanted(serve: Serve, tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(PATIENCE)
        server = serve(
            "--ready-fd",
            str(write_fd),
            pass_fds=[write_fd],
            environ={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        os.close(write_fd)
        about = server.ready()
        assert about["sockets"] == [str(server.path)]
        assert about["driver"] == "lvp"
        with open(read_fd, encoding="utf-8") as file:
            assert '"event": "ready"' in file.read()
        assert notify.recv(100) == b"READY=1"
        assert server.stop() == 0
        assert notify.recv(100) == b"STOPPING=1"


def test_the_supervisor_stays_small_and_clear_of_vulkan(serve: Serve, stress: str) -> None:
    server = serve()
    server.ready()
    finish(start(server, stress, "1", "1"))
    assert process_usage(server.process.pid).resident < 60 << 20
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libvulkan" not in mapped
    assert "engine" not in mapped


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--driver", "nosuch"], "hesper: no driver answers to 'nosuch'; installed: "),
        (["--host-profile", "nosuch"], "hesper: "),
        (["--mode", "999"], "hesper: --mode 999: must be octal permissions, as in 0660"),
        (["--limit", "memory"], "Invalid value"),
        (["--limit", "memory=0"], "Invalid value"),
        (["--limit", "speed=3"], "Invalid value"),
    ],
)
def test_what_cannot_be_is_said_in_one_go(
    arguments: list[str], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    done = subprocess.run(
        [*HESPER, "serve", "--socket", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )
    assert done.returncode in (1, 2)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not path.exists()


def test_two_servers_do_not_share_a_socket(serve: Serve) -> None:
    first = serve()
    first.ready()
    second = serve()
    assert second.end() == 1
    assert "a server is running there" in "".join(second.plain)
    finish(start(first, "vulkaninfo", "--summary"))
    # The look for a live server costs it no worker.
    assert not [entry for entry in first.log if entry["event"] == "client ended"]


def test_a_server_replaces_the_socket_of_one_that_was_killed(serve: Serve) -> None:
    first = serve()
    first.ready()
    children = first.children()
    first.stop(signal.SIGKILL)
    until(lambda: not any(map(alive, children)), "the workers to be gone")
    assert first.path.exists()
    second = serve()
    second.ready()
    finish(start(second, "vulkaninfo", "--summary"))
    assert second.stop() == 0
