"""Fixtures of the virtio tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from device import Vm


@pytest.fixture
def vm() -> Iterator[Vm]:
    """A device with a front-end whose driver is loaded."""
    vm = Vm()
    vm.frontend.start()
    yield vm
    vm.close()
