"""The fake drivers' own rules, seen by a program that uses nothing but the Vulkan loader."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from driver_program import Use
from fake_drivers import make_driver

INVALID_HANDLE, NO_FORMAT, NO_FEATURE, NO_MAP = -1000072003, -11, -8, -5
OUT_OF_DEVICE_MEMORY = -2

TYPES = {
    "plain": "15@0 heaps 1",
    "moltenvk": "1@0 15@0 17@0 heaps 1",
    "kosmickrisp": "15@0 heaps 1",
    "discrete": "0@1 1@0 6@1 14@1 7@0 heaps 2",
    "discrete-export": "0@1 1@0 6@1 14@1 7@0 heaps 2",
}
"""Property flags and heap of each memory type."""

LIMITS = {
    "moltenvk": "page 16384 families 4 type 1",
    "kosmickrisp": "page 16384 families 1 type 1",
    "discrete": "page 4096 families 1 type 2",
    "discrete-export": "page 4096 families 1 type 2",
}

NEEDS = [
    ("moltenvk", "buffer", 0b011),
    ("moltenvk", "tiled", 0b011),
    ("moltenvk", "linear host", 0b011),
    ("moltenvk", "depth", 0b001),
    ("moltenvk", "transient", 0b111),
    ("kosmickrisp", "tiled", 0b1),
    ("discrete", "buffer", 0b11111),
    ("discrete", "buffer host", 0b01111),
    ("discrete", "linear host", 0b01111),
    ("discrete", "tiled host", 0b00011),
    ("discrete", "tiled opaque", 0b00010),
    ("discrete-export", "buffer dma-buf", 0b10010),
    ("discrete-export", "tiled opaque", 0b00010),
]

HOST_TYPES = {
    "moltenvk": 0b010,
    "kosmickrisp": 0b1,
    "discrete": 0b01100,
    "discrete-export": 0b01100,
}

IMPORTED = {"moltenvk": 1, "kosmickrisp": 0, "discrete": 2, "discrete-export": 3}
"""A type that takes host pointers."""

REFUSED = [
    # Memory that cannot be imported, and pointers and sizes that are not whole pages.
    ("moltenvk", "allocate 0 imported 0 65536", INVALID_HANDLE),
    ("moltenvk", "allocate 1 imported 4096 65536", OUT_OF_DEVICE_MEMORY),
    ("moltenvk", "allocate 1 imported 0 4096", OUT_OF_DEVICE_MEMORY),
    ("kosmickrisp", "allocate 0 imported 4096 65536", INVALID_HANDLE),
    ("kosmickrisp", "allocate 0 imported 0 20480", INVALID_HANDLE),
    ("discrete", "allocate 4 imported 0 65536", INVALID_HANDLE),
    ("discrete", "allocate 1 imported 0 65536", INVALID_HANDLE),
    ("discrete", "allocate 2 imported 64 65536", INVALID_HANDLE),
    ("discrete-export", "allocate 4 imported 0 65536", INVALID_HANDLE),
    # Memory that cannot be exported.
    ("moltenvk", "allocate 1 exported opaque", -3),
    ("kosmickrisp", "allocate 0 exported dma-buf", INVALID_HANDLE),
    ("discrete", "allocate 4 exported opaque", INVALID_HANDLE),
    ("discrete", "allocate 1 exported dma-buf", INVALID_HANDLE),
    ("discrete-export", "allocate 2 exported dma-buf", INVALID_HANDLE),
]

NO_SUCH_RESOURCE = [
    ("moltenvk", "levels", NO_FEATURE),
    ("moltenvk", "volume", NO_FEATURE),
    ("moltenvk", "sparse", NO_FEATURE),
    ("moltenvk", "buffer opaque", NO_FEATURE),
    ("kosmickrisp", "attachment", NO_FORMAT),
    ("kosmickrisp", "levels", NO_FORMAT),
    ("discrete", "tiled dma-buf", NO_FEATURE),
]

BROKEN = [
    # Memory of a type that is not offered.
    ("moltenvk", "bind depth 1", "01615"),
    ("moltenvk", "bind buffer 2", "01035"),
    ("discrete", "bind tiled host 2 imported 0 65536", "01615"),
    # Imported memory under what was not made for it.
    ("moltenvk", "bind buffer 1 imported 0 65536", "02985"),
    ("kosmickrisp", "bind linear 0 imported 0 65536", "02989"),
    ("discrete", "bind buffer 3 imported 0 65536", "02985"),
    # Exported memory likewise, and images that need a dedicated allocation for it.
    ("discrete-export", "bind buffer 4 exported dma-buf", "02726"),
    ("discrete-export", "bind linear 4 exported opaque", "02728"),
    ("discrete-export", "bind linear opaque 4 exported opaque", "01445"),
    # A dedicated allocation of a host pointer.
    ("moltenvk", "bind buffer host 1 imported 0 65536 dedicated", "02806"),
    ("kosmickrisp", "bind linear host 0 imported 0 65536 dedicated", "02806"),
    ("discrete", "bind buffer host 2 imported 0 65536 dedicated", "02806"),
    # An import that is to be cleared.
    ("moltenvk", "bind buffer host 1 imported 0 65536 cleared", "10760"),
    # KosmicKrisp's assertion.
    ("kosmickrisp", "bind tiled host 0 imported 0 65536", "kk_image_plane_bind"),
    ("kosmickrisp", "map 1", "01714"),
    # A view as an attachment of what there is as an image, but not to be drawn to.
    ("discrete", "view attachment 3", "VUID-VkImageViewCreateInfo-usage-02276"),
]

BOUND = [
    ("moltenvk", "bind buffer host 1 imported 0 65536"),
    ("moltenvk", "bind linear host 1 imported 0 65536"),
    ("moltenvk", "bind tiled 0"),
    ("moltenvk", "bind tiled 1 cleared"),
    ("moltenvk", "bind transient 2"),
    ("kosmickrisp", "bind buffer host 0 imported 0 16384"),
    ("kosmickrisp", "bind linear host 0 imported 16384 65536"),
    ("kosmickrisp", "bind tiled 0"),
    ("discrete", "bind tiled 1"),
    ("discrete", "bind linear host 3 imported 0 65536"),
    ("discrete", "bind tiled opaque 1 exported opaque dedicated"),
    ("discrete-export", "bind linear dma-buf 4 exported dma-buf dedicated"),
]


@pytest.mark.parametrize("mode", TYPES)
def test_memory_types(use: Use, mode: str) -> None:
    assert use(mode, "types").stdout.strip() == TYPES[mode]


@pytest.mark.parametrize("mode", LIMITS)
def test_limits(use: Use, mode: str) -> None:
    assert use(mode, "limits").stdout.strip() == f"{LIMITS[mode]} fake {mode}"


def test_a_gpu_that_says_it_is_a_processor(use: Use, tmp_path: Path) -> None:
    driver = make_driver(tmp_path, "discrete", is_processor=True)
    assert use(driver, "limits").stdout.startswith("page 4096 families 1 type 4 llvmpipe")


@pytest.mark.parametrize(("mode", "resource", "types"), NEEDS)
def test_where_resources_may_lie(use: Use, mode: str, resource: str, types: int) -> None:
    said = use(mode, "needs", resource).stdout
    assert said.startswith(f"types {types} ")
    fd = "opaque" in resource or "dma-buf" in resource
    assert said.strip().endswith(f"dedicated {int(fd and 'buffer' not in resource)}")


@pytest.mark.parametrize("mode", HOST_TYPES)
def test_host_pointers(use: Use, mode: str) -> None:
    assert use(mode, "host-pointer").stdout.split() == ["0", str(HOST_TYPES[mode])]
    assert use(mode, "allocate", IMPORTED[mode], "imported 0 65536").stdout.strip() == "0"


@pytest.mark.parametrize(("mode", "words", "result"), REFUSED)
def test_refused_allocations(use: Use, mode: str, words: str, result: int) -> None:
    done = use(mode, words)
    assert done.stdout.strip() == str(result)
    assert f"fake driver ({mode}): refused" in done.stderr


@pytest.mark.parametrize(("mode", "resource", "result"), NO_SUCH_RESOURCE)
def test_refused_resources(use: Use, mode: str, resource: str, result: int) -> None:
    assert use(mode, "needs", resource).stdout.strip() == f"create: {result}"


@pytest.mark.parametrize(("mode", "words", "rule"), BROKEN)
def test_broken_rules_end_the_program(use: Use, mode: str, words: str, rule: str) -> None:
    done = use(mode, words)
    assert done.returncode == -signal.SIGABRT, done.stdout + done.stderr
    assert f"fake driver ({mode}): broken rule" in done.stderr
    assert rule in done.stderr


@pytest.mark.parametrize(("mode", "words"), BOUND)
def test_what_may_be_bound(use: Use, mode: str, words: str) -> None:
    done = use(mode, words)
    assert done.stdout.strip() == "bind: 0", done.stdout + done.stderr


def test_moltenvk_binds_no_tiled_image_to_imported_memory(use: Use) -> None:
    done = use("moltenvk", "bind tiled host 1 imported 0 65536")
    assert done.stdout.strip() == f"bind: {OUT_OF_DEVICE_MEMORY}"


@pytest.mark.parametrize(
    ("mode", "words", "said"),
    [
        ("moltenvk", "linear 16", "0 levels 1 external 0 linear-attachments 1"),
        ("moltenvk", "tiled 16 host", "0 levels 15 external 4 linear-attachments 1"),
        ("moltenvk", "tiled 16 dma-buf", "-11 levels 0 external 0 linear-attachments 1"),
        ("kosmickrisp", "linear 16", "-11 levels 0 external 0 linear-attachments 0"),
        ("kosmickrisp", "linear 1 host", "0 levels 1 external 4 linear-attachments 0"),
        ("kosmickrisp", "tiled 16 host", "-11 levels 0 external 0 linear-attachments 0"),
        ("discrete", "tiled 16 host", "0 levels 15 external 0 linear-attachments 0"),
        ("discrete", "tiled 16 opaque", "0 levels 15 external 3 linear-attachments 0"),
        ("discrete", "linear 16", "0 levels 15 external 0 linear-attachments 0"),
        ("discrete-export", "linear 16 dma-buf", "0 levels 15 external 7 linear-attachments 0"),
    ],
)
def test_formats(use: Use, mode: str, words: str, said: str) -> None:
    assert use(mode, "format", words).stdout.strip() == said


@pytest.mark.parametrize(
    ("mode", "type_", "results"),
    [
        ("plain", 0, "0 0"),
        ("moltenvk", 0, f"{NO_MAP} {NO_MAP}"),
        ("moltenvk", 1, f"0 {NO_MAP}"),
        ("moltenvk", 2, f"{NO_MAP} {NO_MAP}"),
        ("kosmickrisp", 0, f"0 {NO_MAP}"),
        ("discrete", 1, f"{NO_MAP} {NO_MAP}"),
        ("discrete", 4, f"0 {NO_MAP}"),
    ],
)
def test_mapping(use: Use, mode: str, type_: int, results: str) -> None:
    """What is host-visible, and once."""
    assert use(mode, "map", type_).stdout.strip() == f"map: {results}"


@pytest.mark.parametrize("handle", ["opaque", "dma-buf"])
def test_exports_show_the_same_bytes(use: Use, handle: str) -> None:
    done = use("discrete-export", "export 4 exported", handle)
    assert done.stdout.strip() == "by the driver, by the driver", done.stdout + done.stderr


def test_an_export_that_cannot_be_mapped(use: Use) -> None:
    done = use("discrete", "export 1 exported opaque")
    assert done.stdout.strip() == "the descriptor cannot be mapped"


@pytest.mark.parametrize(
    ("mode", "extension", "there"),
    [
        ("moltenvk", "VK_KHR_portability_subset", 1),
        ("moltenvk", "VK_EXT_external_memory_host", 1),
        ("moltenvk", "VK_KHR_external_memory_fd", 0),
        ("moltenvk", "VK_EXT_external_memory_dma_buf", 0),
        ("moltenvk", "VK_KHR_external_semaphore_fd", 0),
        ("kosmickrisp", "VK_KHR_portability_subset", 0),
        ("kosmickrisp", "VK_KHR_external_memory_fd", 0),
        ("discrete", "VK_KHR_external_memory_fd", 1),
        ("discrete", "VK_EXT_external_memory_dma_buf", 0),
        ("discrete-export", "VK_EXT_external_memory_dma_buf", 1),
    ],
)
def test_extensions(use: Use, mode: str, extension: str, there: int) -> None:
    assert use(mode, "offered", extension).stdout.strip() == str(there)


@pytest.mark.parametrize("mode", TYPES)
def test_the_last_queue_family_works(use: Use, mode: str) -> None:
    done = use(mode, "work 2")
    assert done.stdout.split("\n")[:3] == ["0 0 0", "0 0 0", "idle 0"], done.stdout + done.stderr
