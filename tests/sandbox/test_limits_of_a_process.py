"""How much of the system a worker may take."""

from __future__ import annotations

import pytest

from hesper.sandbox import rlimits
from hesper.sandbox.needs import needs_of

GIB = 1 << 30


def test_addresses_are_bounded_by_what_a_client_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlimits, "has_sanitizer", lambda: False)
    small = rlimits.address_space(needs_of("lvp"), GIB, 64)
    assert small > 2 * GIB + 64 * (8 << 20)
    assert rlimits.address_space(needs_of("lvp"), 3 * GIB, 64) == small + 4 * GIB


def test_they_are_not_where_the_driver_reserves_them_without_end() -> None:
    for driver in ("nvidia", "radeon", "one that nobody knows", ""):
        assert rlimits.address_space(needs_of(driver), GIB, 64) == 0


def test_they_are_not_under_a_sanitizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlimits, "has_sanitizer", lambda: True)
    assert rlimits.address_space(needs_of("lvp"), GIB, 64) == 0
