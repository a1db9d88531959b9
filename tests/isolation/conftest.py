"""What the tests with real clients share: a client of our own, a server that uses lavapipe."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import HERE, HESPER, Supervised

Serve = Callable[..., Supervised]


def compiled(name: str, folder: Path) -> str:
    """Compile the client `name`.c that lies here; return the program's path."""
    program = folder / name
    source = str(HERE / f"{name}.c")
    subprocess.run(["cc", "-O2", "-o", program, source, "-lvulkan", "-pthread"], check=True)
    return str(program)


@pytest.fixture(scope="session")
def stress(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Vulkan client that records in several threads and checks what it gets: `stress.c`."""
    return compiled("stress", tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Vulkan client whose threads make pipelines at the same time: `pipelines.c`."""
    return compiled("pipelines", tmp_path_factory.mktemp("clients"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts `hesper serve`, with lavapipe unless told; it is gone afterwards."""
    running = []

    def serve(*arguments: str, driver: str = "lavapipe", **wanted: Any) -> Supervised:
        path = tmp_path / "socket"
        command = [*HESPER, "serve", "--socket", str(path), "--driver", driver, "--json"]
        command += ["--log-level", "debug", *arguments]
        running.append(Supervised(path, command, **wanted))
        return running[-1]

    yield serve
    for one in running:
        one.process.kill()
        one.end()
