"""What a worker does with the host's driver before a client comes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hesper.guest import Limits
from hesper.host.drivers import choose_driver
from hesper.isolation import driver as module
from hesper.isolation.driver import OpenDriver

NVIDIA_PROPRIETARY = 4
"""VkDriverId."""


@pytest.mark.parametrize(("driver_id", "is_warmed"), [(None, True), (NVIDIA_PROPRIETARY, False)])
def test_a_worker_makes_no_instance_ahead_where_the_first_one_counts(
    monkeypatch: pytest.MonkeyPatch, driver_id: int | None, *, is_warmed: bool
) -> None:
    driver = choose_driver("lvp")
    if driver_id is not None:
        device = replace(driver.devices[0], driver_id=driver_id)
        driver = replace(driver, devices=(device,))
    warmed: list[object] = []
    monkeypatch.setattr(module, "warm_up", lambda *arguments: warmed.append(arguments))
    OpenDriver(driver, Limits(), None, None).warm_up()
    assert bool(warmed) == is_warmed
