"""What the log says of a driver that fails behind a running server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from supervised import HERE, PATIENCE, Supervised
from test_serve import finish, start

from hesper.host.drivers import find_drivers


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver of `failing_driver.c`."""
    path = tmp_path_factory.mktemp("driver") / "libfailing.so"
    source = str(HERE / "failing_driver.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", path, source, "-ldl"], check=True)
    return path


@pytest.fixture
def failing(
    serve: Callable[..., Supervised], library: Path, tmp_path: Path
) -> Callable[[str], Supervised]:
    """Starts a server on a driver that fails as soon as it is ready."""

    def failing(fault: str) -> Supervised:
        lavapipe = next(driver for driver in find_drivers().drivers if driver.name == "lvp")
        manifest = tmp_path / "failing_icd.json"
        icd = {"library_path": str(library), "api_version": "1.3.0"}
        manifest.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": icd}))
        environ = {"HESPER_TEST_DRIVER": lavapipe.library_path, "HESPER_TEST_FAULTS": str(tmp_path)}
        server = serve(driver=str(manifest), environ=environ)
        server.ready()
        (tmp_path / fault).touch()
        return server

    return failing


Failing = Callable[[str], Supervised]


def refused(server: Supervised, command: str) -> dict[str, Any]:
    """Wait for the line that says so."""
    while (entry := server.logged("command failed"))["command"] != command:
        pass
    return entry


@pytest.mark.parametrize(
    ("fault", "command", "result"),
    [
        ("refuse", "vkCreateInstance", "VK_ERROR_INCOMPATIBLE_DRIVER"),
        ("device", "vkCreateDevice", "VK_ERROR_FEATURE_NOT_PRESENT"),
        ("memory", "vkCreateFence", "VK_ERROR_OUT_OF_DEVICE_MEMORY"),
    ],
)
def test_what_the_driver_refuses_is_said(
    failing: Failing, stress: str, fault: str, command: str, result: str
) -> None:
    server = failing(fault)
    client = start(server, stress, "1", "1")
    client.communicate(timeout=PATIENCE)
    assert client.returncode != 0
    entry = refused(server, command)
    assert (entry["level"], entry["result"]) == ("warning", result)
    assert entry["driver"] == "failing"
    assert entry["reason"].startswith("the driver said so")
    if command == "vkCreateDevice":
        assert "VK_EXT_external_memory_host" in entry["reason"]
        assert "features" in entry["reason"]


def test_the_same_refusal_is_said_once_at_warning(failing: Failing, stress: str) -> None:
    server = failing("memory")
    client = start(server, stress, "4", "1")
    client.communicate(timeout=PATIENCE)
    # Mesa takes it for granted that there is a fence, and uses it: the device is lost.
    server.logged("client left")
    lines = [entry for entry in server.log if entry.get("command") == "vkCreateFence"]
    assert [entry["level"] for entry in lines].count("warning") == 1


@pytest.mark.parametrize(
    ("fault", "command", "reason"),
    [
        ("crash", "vkCmdFillBuffer (in the driver, ring 1)", "was killed by SIGSEGV"),
        ("abort", "vkCreateInstance (in its handler, ring 1)", "was killed by SIGABRT"),
    ],
)
def test_a_crash_is_said_with_its_command(
    failing: Failing, stress: str, fault: str, command: str, reason: str
) -> None:
    server = failing(fault)
    client = start(server, stress, "1", "1")
    client.communicate(timeout=PATIENCE)
    assert client.returncode != 0
    entry = server.logged("worker died")
    assert entry["reason"] == reason
    assert entry["command"].endswith(command)


def test_without_a_fault_it_serves(failing: Failing, stress: str) -> None:
    finish(start(failing("nothing"), stress, "1", "1"))
