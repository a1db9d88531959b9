"""A driver set and a root, made once: what tests change, they make anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from libraries import make_driver_set, make_root

from hesper.containers.driver_set import DriverSet


@pytest.fixture(scope="session")
def driver_set(tmp_path_factory: pytest.TempPathFactory) -> DriverSet:
    """A set that nobody changes."""
    return make_driver_set(tmp_path_factory.mktemp("set") / "set")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a glibc that is new enough, and nothing else."""
    return make_root(tmp_path / "root")
