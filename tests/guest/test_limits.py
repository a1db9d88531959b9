"""Limits of a context."""

from __future__ import annotations

import msgspec
import pytest

from hesper.guest import Limits
from hesper.portable import physical_memory


def test_defaults_leave_room_for_real_programs() -> None:
    limits = Limits()
    assert limits.memory >= 1 << 30
    assert limits.objects >= 100_000
    assert limits.rings > 2 * 200  # two devices' compilers on a machine of 200 threads
    assert limits.arena >= 16 << 20
    assert limits.resources >= 1024


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_no_limit_can_be_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.convert({"colour": 1}, Limits)


def test_no_client_may_have_all_of_the_machine() -> None:
    assert physical_memory() // 2 <= Limits().memory < physical_memory()
