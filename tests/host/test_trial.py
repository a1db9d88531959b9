"""What fake drivers with other drivers' rules were seen to do with memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_drivers import METAL, make_driver

from hesper.host.drivers import choose_driver
from hesper.host.seen import MemorySeen
from hesper.portable import page_size

pytestmark = pytest.mark.programs

POINTER_TYPES = {"plain": 1, "moltenvk": 2, "kosmickrisp": 1, "discrete": 12, "discrete-export": 12}


def see(folder: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> MemorySeen:
    """What is found out about the memory of a fake driver."""
    if mode in METAL:
        # For the probe's process; this one has asked for its page size before.
        page_size()
        monkeypatch.setenv("HESPER_PAGE_SIZE", "16384")
    driver = choose_driver(str(make_driver(folder, mode).manifest))
    memory = driver.devices[0].memory
    assert memory is not None
    return memory


@pytest.mark.parametrize("mode", POINTER_TYPES)
def test_pointers_are_taken_by_some_types(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = see(tmp_path, mode, monkeypatch)
    types = POINTER_TYPES[mode]
    assert (seen.imported, seen.buffers, seen.linear_images) == (types, types, types)
    assert seen.states_buffers
    assert seen.tiled_images == (1 if mode == "plain" else 0)
    assert seen.linear_attachments == (mode in {"plain", "moltenvk"})


def test_a_step_that_a_driver_does_not_survive_is_one_it_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KosmicKrisp's tiled images and imported memory end the process."""
    seen = see(tmp_path, "kosmickrisp", monkeypatch)
    assert seen.not_survived == ("unstated image",)
    assert seen.unstated_images == 0
    assert seen.buffers


def test_exported_memory_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = see(tmp_path, "discrete-export", monkeypatch)
    assert [(each.handle_type, each.types) for each in seen.exports] == [(0x200, 16), (0x1, 16)]
    assert not see(tmp_path, "discrete", monkeypatch).exports


@pytest.mark.parametrize("command", ["vkAllocateMemory", "vkGetMemoryHostPointerPropertiesEXT"])
def test_a_driver_that_takes_no_pointers_after_all_is_believed(
    tmp_path: Path, command: str
) -> None:
    manifest = make_driver(
        tmp_path, "plain", [f"{command} 1+ VK_ERROR_OUT_OF_HOST_MEMORY"]
    ).manifest
    memory = choose_driver(str(manifest)).devices[0].memory
    assert memory is not None
    assert (memory.imported, memory.buffers) == (0, 0)


def test_a_device_that_cannot_be_made_is_listed_all_the_same(tmp_path: Path) -> None:
    fault = "vkCreateDevice 1+ VK_ERROR_INITIALIZATION_FAILED"
    driver = choose_driver(str(make_driver(tmp_path, "plain", [fault]).manifest))
    assert driver.devices[0].memory is None
