"""What the tests with real programs share: places, setups, servers, a screen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from screen import Screen, virtual_screen
from servers import SETUPS, Place, Setup, debian_root, this_machine


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Clients on this machine, with its own Mesa."""
    return this_machine(tmp_path_factory.mktemp("exchange"))


@pytest.fixture(scope="session")
def trixie() -> Iterator[Place]:
    """A root with a newer Mesa and vkmark."""
    place = debian_root("trixie")
    yield place
    for folder in place.exchange.glob(f"driver-{os.getpid()}-*"):
        shutil.rmtree(folder)


@pytest.fixture(params=["machine", "trixie"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the two."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=SETUPS, ids=lambda setup: setup.name)
def setup(request: pytest.FixtureRequest) -> Setup:
    """Each way the host side runs."""
    chosen: Setup = request.param
    return chosen


@pytest.fixture(scope="session")
def screen() -> Iterator[Screen]:
    """A virtual X screen."""
    with virtual_screen() as started:
        yield started


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder with the example programs."""
    return Path(__file__).parents[2] / "examples"
