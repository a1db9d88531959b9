"""What the tests of the fake drivers share: the program that uses one, and drivers."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver_program import Use, compile_program, run
from fake_drivers import MODES, FakeDriver, make_driver


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    return compile_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FakeDriver]:
    """One driver of each mode, without faults."""
    folder = tmp_path_factory.mktemp("drivers")
    return {mode: make_driver(folder / mode, mode) for mode in ("plain", *MODES)}


@pytest.fixture
def use(program: Path, drivers: dict[str, FakeDriver]) -> Use:
    """Run the program on a driver, or on the one of a mode."""
    return lambda driver, *words: run(
        program, drivers[driver] if isinstance(driver, str) else driver, *words
    )
