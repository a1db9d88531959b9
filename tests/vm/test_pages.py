"""A guest with 4 KiB pages on a host with larger ones, whose driver knows nothing of alignment."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator

import pytest
from guest_vm import TREE_DEVICE, GpuGuest, gpu_guest
from initramfs import Tree

from hesper.portable import page_size
from hesper.vhost_user_gpu import VhostUserTransport

LARGE = 16384


@pytest.fixture
def boot(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], GpuGuest]]:
    """Boot it: the device offers no blob alignment, as if the kernel were older than 7.2."""
    assert page_size() == mmap.PAGESIZE, "known, and kept, in this process"
    monkeypatch.setenv("HESPER_PAGE_SIZE", str(LARGE))
    for module in ("guest_pages", "blobs"):
        monkeypatch.setattr(f"hesper.gpu.{module}.page_size", lambda: LARGE)
    with gpu_guest(tree, extra=TREE_DEVICE, blob_alignment=False) as vm:
        yield lambda: vm


def check_llvmpipe_is_left(vm: GpuGuest) -> None:
    """All of the guest's Vulkan, that is, but Venus."""
    vm.enter_tree()
    told = vm.run("in_tree vulkaninfo --summary 2>&1")
    assert "deviceName         = llvmpipe" in told
    assert "Venus" not in told


def test_venus_is_withheld(boot: Callable[[], GpuGuest], caplog: pytest.LogCaptureFixture) -> None:
    vm = boot()
    assert "-blob_alignment" in vm.run("dmesg | grep drm")
    check_llvmpipe_is_left(vm)
    assert "UBSAN" not in vm.run("dmesg")
    records = [*caplog.get_records("setup"), *caplog.records]
    assert sum("no Venus for this guest" in record.message for record in records) == 1


class TestLate:
    """The driver's first question comes before anything shows what its pages are."""

    @pytest.fixture(autouse=True)
    def _blind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(VhostUserTransport, "queue_addresses", lambda _: [])

    def test_the_console_has_shown_it_by_then(self, boot: Callable[[], GpuGuest]) -> None:
        vm = boot()
        assert "cap set 0: id 4" in vm.run("dmesg | grep drm")
        check_llvmpipe_is_left(vm)
