"""Options that cannot be are refused when they are made: what, where, and what to do."""

from __future__ import annotations

import pytest

import hesper
from hesper.errors import HesperError, OptionError

Options = hesper.VtestServer.Options


@pytest.mark.parametrize(
    ("wrong", "option", "says"),
    [
        ({"max_clients": 0}, "max_clients", "must be a whole number, 1 to 65536; left out, "),
        ({"max_clients": "5"}, "max_clients", "must be a whole number"),
        ({"max_clients": True}, "max_clients", "must be a whole number"),
        ({"warm": 0}, "warm", "must be a whole number, 1 to 1024"),
        ({"mode": 0o1777}, "mode", "must be permissions, as in 0o660"),
        ({"patience": -1}, "patience", "must be a whole number, 0 to 100000; left out, "),
        ({"handshake_timeout": -1}, "handshake_timeout", "None: for ever"),
        ({"handshake_timeout": float("nan")}, "handshake_timeout", "None: for ever"),
        ({"sample": -1}, "sample", "must be a whole number"),
        ({"driver": 7}, "driver", "must be a driver's name or the path of its manifest"),
        ({"host_profile": 7}, "host_profile", "must be the path of a profile"),
        ({"limits": {"memory": 1}}, "limits", "must be hesper.Limits"),
    ],
)
def test_options_that_cannot_be(wrong: dict[str, object], option: str, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        Options(**wrong)  # type: ignore[arg-type]
    assert caught.value.option == option
    assert str(caught.value).startswith(f"{option}=")
    assert isinstance(caught.value, HesperError)
    assert isinstance(caught.value, ValueError)


def test_limits_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="rings=0: must be a whole number, 1 or more"):
        hesper.Limits(rings=0)
    assert hesper.Limits(memory=1 << 30).memory == 1 << 30


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Options().warm = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Options().limits.rings = 3  # type: ignore[misc]
