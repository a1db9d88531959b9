"""Guests on hosts whose drivers have rules of their own: the fake drivers of tests/drivers."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_drivers import METAL, MODES, make_driver
from guest_checks import check_blob_on_screen, check_compute, check_rendering
from guest_vm import TREE_DEVICE, GpuGuest, gpu_guest
from initramfs import Tree
from weston_cube import check_compositor, check_turning, start_weston

from hesper.portable import page_size

PROGRAMS = ("compute", "render", "scanout")


@pytest.fixture(scope="module", params=MODES)
def manifest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A driver of each mode.

    Workers take the Metal modes' pages, so that what they import is whole ones.  The device in this
    process does not: Debian's kernel and Mesa do not know the device's blob alignment.
    """
    folder = tmp_path_factory.mktemp("driver")
    # zink is made to take a processor here, and takes no other.
    driver = make_driver(folder, request.param, is_processor=True)
    with pytest.MonkeyPatch.context() as patch:
        assert page_size() == mmap.PAGESIZE, "known, and kept, in this process"
        if request.param in METAL:
            patch.setenv("HESPER_PAGE_SIZE", "16384")
        yield str(driver.manifest)


@pytest.fixture(scope="module")
def vm(manifest: str, tree: Tree, program: Callable[[str], Path]) -> Iterator[GpuGuest]:
    """A guest with the programs, and the tree for weston."""
    programs = [program(name) for name in PROGRAMS]
    with gpu_guest(tree, programs=programs, extra=TREE_DEVICE, driver=manifest) as guest:
        yield guest


def test_compute_and_memory(vm: GpuGuest, manifest: str, program: Callable[[str], Path]) -> None:
    check_compute(vm, program("compute"), manifest)


def test_rendering(vm: GpuGuest, manifest: str, program: Callable[[str], Path]) -> None:
    check_rendering(vm, program("render"), manifest)


def test_a_blob_is_shown(vm: GpuGuest) -> None:
    check_blob_on_screen(vm)


def test_a_swapchain_on_a_desktop(vm: GpuGuest) -> None:
    start_weston(vm)
    check_compositor(vm)
    check_turning(vm)
