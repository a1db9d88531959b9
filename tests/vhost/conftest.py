"""Fixtures of the vhost tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from toy_device import ToyVm


@pytest.fixture
def vm() -> Iterator[ToyVm]:
    """The toy device with a front-end whose driver is loaded."""
    vm = ToyVm()
    vm.frontend.start()
    yield vm
    vm.close()
