"""What holds for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from hesper import log
from hesper.log_limiter import Limiter

# A busy machine is no mistake: no test asserts a time.
settings.register_profile("hesper", deadline=None)
settings.load_profile("hesper")

_ROOMS = {
    "bench": ("programs", "slow"),
    "clients": ("clients", "programs", "slow"),
    "drivers": ("programs",),
    "isolation": ("programs", "slow"),
    "vm": ("programs", "slow", "vm"),
}
"""Marks that all tests of a folder have; pyproject.toml says what they mean."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder."""
    here = Path(__file__).parent
    for item in items:
        for mark in _ROOMS.get(item.path.relative_to(here).parts[0], ()):
            item.add_marker(mark)


@pytest.fixture(autouse=True)
def _fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the log where another has sent it, nor its allowance of lines used up."""
    monkeypatch.setattr(log, "_sink", log._to_logging)  # noqa: SLF001
    monkeypatch.setattr(log, "_threshold", 0)
    monkeypatch.setattr(log, "_limiter", Limiter(log.pass_on))
