"""`hesper.GpuDevice` in somebody else's process: any thread, several, and no trace of them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from traces import PATIENCE, Trace, until

import hesper
from hesper.errors import ListenError, NoDriverError, OptionError, StateError

Options = hesper.GpuDevice.Options
LAVAPIPE = Options(driver="lavapipe", hostmem=1 << 30)


@pytest.fixture(autouse=True)
def _without_a_trace(trace: Trace) -> None:
    """Check that nothing is left, nor changed."""


def test_it_serves_a_vmm(tmp_path: Path) -> None:
    gpu = hesper.GpuDevice(tmp_path / "gpu", LAVAPIPE)
    with pytest.raises(StateError, match="no display yet; start"):
        _ = gpu.display
    assert gpu.figures() == []
    with gpu:
        assert gpu.about.driver == "lvp"
        assert [scanout.wanted for scanout in gpu.display] == [(1280, 800)]
        assert gpu.figures() == []
        with socket.socket(socket.AF_UNIX) as vmm:
            vmm.connect(gpu.socket)
    assert list(tmp_path.iterdir()) == []
    # Who still has it may look at it.
    assert len(gpu.display) == 1


@pytest.mark.slow
def test_two_on_threads_beside_a_vtest_server(tmp_path: Path) -> None:
    seen: list[str] = []
    all_there = threading.Barrier(3)

    def work(server: hesper.GpuDevice | hesper.VtestServer) -> None:
        with server:
            all_there.wait(PATIENCE)
            seen.append(server.about.driver)
            all_there.wait(PATIENCE)

    servers: list[hesper.GpuDevice | hesper.VtestServer] = [
        hesper.GpuDevice(tmp_path / "one", LAVAPIPE),
        hesper.GpuDevice(tmp_path / "two", LAVAPIPE),
        hesper.VtestServer(tmp_path / "three", hesper.VtestServer.Options(driver="lavapipe")),
    ]
    threads = [threading.Thread(target=work, args=[server]) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert seen == ["lvp"] * 3


@pytest.mark.slow
def test_started_here_and_stopped_there_again_and_again(tmp_path: Path) -> None:
    gpu = hesper.GpuDevice(tmp_path / "gpu", LAVAPIPE)
    for _ in range(3):
        gpu.start()
        with pytest.raises(StateError, match="runs already"):
            gpu.start()
        thread = threading.Thread(target=gpu.stop)
        thread.start()
        thread.join(PATIENCE)
        assert gpu.wait(0)
        gpu.stop()


def test_who_made_it_is_told_when_it_cannot_go_on(tmp_path: Path) -> None:
    """Its supervisor, a process of its own, is killed."""
    told = threading.Event()
    before = Trace()
    gpu = hesper.GpuDevice(tmp_path / "gpu", LAVAPIPE, on_end=told.set)
    with gpu:
        before.kill_new_children()
        assert told.wait(PATIENCE)
        until(lambda: not gpu.is_running, "the end of the device")
        with pytest.raises(hesper.errors.HesperError, match="cannot go on; the log says why"):
            gpu.wait()


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoDriverError, match="no driver answers to 'nobody'"):
        hesper.GpuDevice(tmp_path / "gpu", Options(driver="nobody")).start()
    with pytest.raises(ListenError, match="No such file"):
        hesper.GpuDevice(tmp_path / "no" / "such" / "gpu", LAVAPIPE).start()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "option", "says"),
    [
        ({"scanouts": 17}, "scanouts", "must be a whole number, 0 to 16; with 0 the GPU only r"),
        ({"max_contexts": 0}, "max_contexts", "must be a whole number, 1 to 4096"),
        ({"hostmem": 3 << 30}, "hostmem", "must be a power of two"),
        ({"hostmem": 1 << 41}, "hostmem", "must be a whole number"),
        ({"resolution": (0, 1)}, "resolution", r"must be \(width, height\): "),
        ({"resolution": 1024}, "resolution", r"must be \(width, height\): "),
        ({"patience": 1 << 20}, "patience", "must be a whole number, 0 to 100000"),
    ],
)
def test_options_that_cannot_be(wrong: dict[str, object], option: str, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        Options(**wrong)  # type: ignore[arg-type]
    assert caught.value.option == option
