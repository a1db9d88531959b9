"""Guests on lavapipe, which every machine that runs the tests has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from guest_client import Guest, MakeGuest

from hesper.guest import Limits
from hesper.host.drivers import Driver, choose_driver
from hesper.host.profile import Profile
from open_files import assert_closed_since, open_files


@cache
def lavapipe() -> Driver:
    """The software driver, probed once."""
    return choose_driver("lavapipe")


def mappings() -> int:
    """How many pieces of Hesper's shared memory this process has mapped."""
    return Path("/proc/self/maps").read_text().count("hesper-test")


@pytest.fixture
def make_guest() -> Iterator[MakeGuest]:
    """Make guests; each is closed in the end, and must leave nothing behind."""
    guests: list[Guest] = []
    _warm_up()
    # Of threads and mappings that others left to end when they will, some may end meanwhile.
    before, threads, mapped = open_files(), set(threading.enumerate()), mappings()

    def make(
        limits: Limits | None = None, profile: Profile | None = None, *, emulates: bool = True
    ) -> Guest:
        guests.append(Guest(lavapipe(), limits=limits, profile=profile, emulates=emulates))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()
        assert not guest.context.is_abandoned
        assert guest.context.pool.used == 0
    assert_closed_since(before)
    assert set(threading.enumerate()) <= threads
    assert mappings() <= mapped


@pytest.fixture
def guest(make_guest: MakeGuest) -> Guest:
    """A guest with instance, device and queue."""
    return make_guest().start()


@cache
def _warm_up() -> None:
    """What the driver opens once and keeps must not count as a leak of the first test."""
    guest = Guest(lavapipe()).start()
    guest.wait_for_queue()
    guest.close()
