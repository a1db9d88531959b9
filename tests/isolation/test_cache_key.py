"""The key with which pipeline caches are signed: one a user, known to nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hesper.api.options import HostOptions, for_workers
from hesper.isolation.cache_key import SIZE, cache_key


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept; nothing is there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cache_key.cache_clear()
    return tmp_path / "hesper" / "cache.key"


def again() -> bytes:
    """The key as another process of the user reads it."""
    cache_key.cache_clear()
    return cache_key()


def test_it_is_made_once_and_is_the_users_alone(kept: Path) -> None:
    key = again()
    assert len(key) == SIZE
    assert kept.read_bytes() == key
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert again() == key
    assert os.listdir(kept.parent) == [kept.name]


@pytest.mark.parametrize("damage", ["others may read it", "it is short", "it is long"])
def test_one_that_is_no_secret_or_damaged_is_made_anew(kept: Path, damage: str) -> None:
    old = again()
    if damage == "others may read it":
        kept.chmod(0o644)
    else:
        kept.write_bytes(old[:-1] if damage == "it is short" else old + b"\0")
    new = again()
    assert new != old
    assert again() == new
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_without_a_folder_it_lives_as_long_as_the_server(kept: Path) -> None:
    kept.parent.write_bytes(b"")  # no folder can be made there
    key = again()
    assert len(key) == SIZE
    assert cache_key() == key
    assert again() != key


def test_a_link_is_not_followed(kept: Path, tmp_path: Path) -> None:
    kept.parent.mkdir()
    other = tmp_path / "other"
    other.write_bytes(bytes(SIZE))
    other.chmod(0o600)
    kept.symlink_to(other)
    assert again() != bytes(SIZE)
    assert other.read_bytes() == bytes(SIZE)


def test_workers_are_told(kept: Path) -> None:
    assert for_workers(HostOptions())["cache_key"] == again().hex() == kept.read_bytes().hex()
