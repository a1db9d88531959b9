"""Fixtures of the gpu tests: each runs by vhost-user and by function calls alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_vm import TRANSPORTS, MakeVm, Vm

from hesper.gpu.limits import Limits


@pytest.fixture(params=TRANSPORTS)
def make_vm(request: pytest.FixtureRequest) -> Iterator[MakeVm]:
    """See `MakeVm`; all are closed at the end of the test."""
    made: list[Vm] = []

    def make(*, scanouts: int = 2, limits: Limits | None = None) -> Vm:
        vm = Vm(request.param, scanouts=scanouts, limits=limits)
        made.append(vm)
        vm.guest.start()
        return vm

    yield make
    for vm in made:
        vm.close()


@pytest.fixture
def vm(make_vm: MakeVm) -> Vm:
    """A device with a guest whose driver is loaded."""
    return make_vm()
