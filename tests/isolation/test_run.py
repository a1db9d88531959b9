"""`hesper run`: a program behaves as it would without, but for its Vulkan."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from supervised import HESPER, PATIENCE, Supervised, alive, children_of, environment, until

Serve = Callable[..., Supervised]
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `hesper run` puts its socket; empty before and after."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def run(runtime: Path) -> Iterator[Run]:
    """Starts `hesper run` with lavapipe."""
    running = []

    def run(*arguments: str, driver: str = "lavapipe", **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*HESPER, "run", "--driver", driver, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
            env=environment(XDG_RUNTIME_DIR=str(runtime), **environ),
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate(timeout=PATIENCE)


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_a_program_gets_its_vulkan_through_hesper(run: Run, stress: str, runtime: Path) -> None:
    process = run("--", stress, "2", "2")
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, "streaming\n"), errors
    assert list(runtime.iterdir()) == []


def test_the_device_is_venus(run: Run) -> None:
    process = run("--", "vulkaninfo", "--summary")
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "Virtio-GPU Venus (llvmpipe" in output


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -KILL $$", -signal.SIGKILL),
        ("ulimit -c 0; kill -SEGV $$", -signal.SIGSEGV),
    ],
)
def test_the_end_is_the_programs(run: Run, script: str, status: int, runtime: Path) -> None:
    process = run("--", "sh", "-c", script)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert list(runtime.iterdir()) == []


def test_arguments_and_output_are_left_alone(run: Run) -> None:
    process = run("--", "printf", "%s|", "a b", "--driver", "--help", "*")
    assert process.communicate(timeout=PATIENCE) == ("a b|--driver|--help|*|", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_the_programs(run: Run, number: signal.Signals) -> None:
    program = (
        "import os, signal, sys\n"
        # The signal may come while the program prints: print could not be called again.
        "def end(number, _): os.write(1, b'%d\\n' % number); sys.exit(5)\n"
        f"signal.signal({int(number)}, end)\n"
        "print('go', flush=True)\n"
        "while True: signal.pause()\n"
    )
    process = run("--", sys.executable, "-c", program)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    process.send_signal(number)
    assert process.stdout.readline() == f"{int(number)}\n"
    assert process.wait(PATIENCE) == 5


def test_a_signal_that_ends_the_program_ends_us_the_same_way(run: Run) -> None:
    process = run("--", "sh", "-c", "echo go; exec sleep 1000")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == -signal.SIGTERM


def test_ctrl_c_reaches_the_program_once(runtime: Path) -> None:
    script = "trap 'n=$((n+1)); echo got $n' INT; echo go; read -r line; read -r line; exit 5"
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(environment(XDG_RUNTIME_DIR=str(runtime)))
        os.execv(sys.executable, [*HESPER, "run", "--driver", "lavapipe", "--", "sh", "-c", script])
    seen = b""

    def read_until(word: bytes) -> None:
        nonlocal seen
        while word not in seen:
            seen += os.read(terminal, 1000)

    read_until(b"go\r\n")
    os.write(terminal, b"\x03")
    read_until(b"got 1\r\n")
    os.write(terminal, b"\n\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    assert b"got 2" not in seen


def test_nothing_outlives_a_killed_run(run: Run) -> None:
    process = run("--", "sh", "-c", "echo go; exec sleep 1000")
    assert process.stdout is not None
    process.stdout.readline()
    before = children_of(process.pid)
    assert len(before) == 2
    program = until(lambda: [pid for pid in before if name_of(pid) == "sleep"], "sleep to run")[0]
    process.kill()
    process.wait(PATIENCE)
    until(lambda: not any(alive(pid) for pid in before if pid != program), "the worker to end")
    os.kill(program, signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--", "/no/such/program"], "cannot run /no/such/program: no such program"),
        (["--venus", "/no/such.json", "--", "true"], "no Venus driver is installed"),
        ([], "no program: say hesper run -- COMMAND"),
        (["--frobnicate", "--", "true"], "--frobnicate"),
    ],
)
def test_what_cannot_be_is_said(run: Run, arguments: list[str], reason: str, runtime: Path) -> None:
    process = run(*arguments)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, 2)
    assert reason in errors
    assert "Traceback" not in errors
    assert output == ""
    assert list(runtime.iterdir()) == []


def test_a_driver_that_is_not_there_is_said(run: Run, runtime: Path) -> None:
    process = run("--", "true", driver="nosuch")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "no driver answers to 'nosuch'" in errors
    assert list(runtime.iterdir()) == []


def test_variables_can_be_printed_for_a_shell(run: Run) -> None:
    own = {"VN_DEBUG": "init", "VN_PERF": "no_multi_ring", "MESA_VK_WSI_DEBUG": "x"}
    process = run("--print-env", "--socket", "/tmp/a b", **own)
    output, _ = process.communicate(timeout=PATIENCE)
    names = ("VTEST_SOCKET_NAME", "VN_DEBUG", "VN_PERF", "MESA_VK_WSI_DEBUG", "VK_DRIVER_FILES")
    script = output + "".join(f'echo "${name}";' for name in names)
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    socket, debug, perf, window, manifest = shown.splitlines()
    assert (socket, debug, window) == ("/tmp/a b", "init,vtest", "x")
    assert perf == "no_multi_ring,no_async_mem_alloc"
    assert Path(manifest).is_file()


def test_a_server_that_runs_already_can_be_used(run: Run, serve: Serve) -> None:
    server = serve()
    server.ready()
    process = run("--socket", str(server.path), "--", "vulkaninfo", "--summary")
    output, errors = process.communicate(timeout=PATIENCE)
    assert "Virtio-GPU Venus" in output, errors
    server.logged("client connected")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[str]:
    """A virtual X screen; its DISPLAY."""
    read_fd, write_fd = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_fd), "-screen", "0", "640x480x24"]
    with (tmp_path / "xvfb.log").open("wb") as log:
        server = subprocess.Popen(command, pass_fds=[write_fd], stdout=log, stderr=log)
    os.close(write_fd)
    with open(read_fd, encoding="ascii") as file:
        number = file.readline().strip()
    assert number, (tmp_path / "xvfb.log").read_text()
    yield f":{number}"
    server.terminate()
    server.wait(PATIENCE)


def test_a_program_shows_its_window(run: Run, screen: str) -> None:
    process = run("--", "vkcube", "--c", "20", DISPLAY=screen)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output + errors
    assert "Virtio-GPU Venus" in output + errors
