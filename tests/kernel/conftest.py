"""A driver that does nothing, compiled once, and an engine on it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hesper.kernel.engine import Engine
from hesper.kernel.handlers import Call
from hesper.kernel.views import Scratch
from hesper.kernel.vulkan import Vulkan
from hesper.protocol.model import load
from hesper.protocol.relations import DEVICE_NUMBERS

COMMAND_BUFFER, BUFFER, LAYOUT = 4, 5, 6
"""Guest ids of the objects every engine starts with."""

BOUND = 120.0
"""Seconds a condition may take."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < until, f"waited {BOUND} s for {what}"
        time.sleep(0.0005)


def happens(condition: Callable[[], bool]) -> bool:
    """Whether what must not happen does so within the time it would take, many times over."""
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.001)
    return False


def compile_library(name: str, folder: Path) -> Path:
    """A library made of `name`.c."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "the kernel's tests need a C compiler (Debian: apt install gcc)"
    library = folder / f"lib{name}.so"
    source = Path(__file__).parent / f"{name}.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fake driver."""
    return compile_library("fake_driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def object_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver that makes objects."""
    return compile_library("object_driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def queue_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver whose queue is the test's to drive."""
    return compile_library("queue_driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def sets_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver that notes writes and copies."""
    return compile_library("sets_driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture
def noted(sets_driver: Path) -> Callable[[], list[tuple[int, ...]]]:
    """What the driver was told last."""
    library = ctypes.CDLL(str(sets_driver))
    library.noted.restype = ctypes.POINTER(ctypes.c_uint64)

    def rows() -> list[tuple[int, ...]]:
        count = ctypes.c_ulong()
        flat = library.noted(ctypes.byref(count))
        return [tuple(flat[6 * row : 6 * row + 5]) for row in range(count.value)]

    return rows


@pytest.fixture(scope="session")
def draw_count(fake_driver: Path) -> Callable[[], int]:
    """How many draws have reached the fake driver."""
    count = ctypes.CDLL(str(fake_driver)).draw_count
    count.restype = ctypes.c_ulong
    return count


class Host:
    """An engine on the fake driver with a few objects."""

    def __init__(
        self,
        library: Path,
        *,
        object_limit: int = 1000,
        memory_limit: int = 64 << 20,
        most: dict[str, int] | None = None,
        handlers: dict[str, Callable[[Call], None]] | None = None,
        **more: Callable[[Call], None],
    ) -> None:
        self.fatal: list[str] = []
        self.notices: list[tuple[str, dict[str, Any]]] = []
        # Guests' memory, which outlives them: a ring's thread reads it until the engine stops.
        self.lent: list[ctypes.Array[ctypes.c_char]] = []
        vulkan = Vulkan(str(library))
        self.engine = Engine(
            vulkan,
            {**(handlers or {}), **more},
            arena_limit=1 << 20,
            object_limit=object_limit,
            resource_limit=16,
            memory_limit=memory_limit,
            most=most,
            on_fatal=self.fatal.append,
            on_notice=lambda *notice: self.notices.append(notice),
        )
        # Tests count submissions; those that want a look-out say so.
        self.engine.timelines.set_lookout(10**12)
        instance = vulkan.instance_table(1)
        self.device_table = vulkan.device_table(instance, 3)
        self.engine.objects.add(1, "VkInstance", 1, table=instance)
        self.engine.objects.add(2, "VkPhysicalDevice", 2, parent=1, table=instance)
        self.engine.objects.add(3, "VkDevice", 3, table=self.device_table)
        self.engine.devices.describe_nulls(3, descriptors=True, indices=True)
        self.engine.objects.add(COMMAND_BUFFER, "VkCommandBuffer", 40, device=3)
        self.engine.objects.add(BUFFER, "VkBuffer", 50, device=3)
        self.engine.objects.add(LAYOUT, "VkPipelineLayout", 60, device=3)

    def holds(self) -> dict[str, int]:
        """What the ledger has when objects and rings are gone; nothing can be used after this."""
        self.engine.stop()
        for each in self.engine.objects.all():
            self.engine.objects.remove(each.id)
        figures = self.engine.ledger.figures()
        return {name: held for name, held in figures.items() if held and name != "limit"}


@pytest.fixture
def host(fake_driver: Path) -> Iterator[Host]:
    """An engine, which must have given everything back when its objects are gone."""
    host = Host(fake_driver)
    yield host
    left = host.holds()
    if not host.fatal:  # what a command decodes to that breaks the protocol stays to the end
        assert left == {}


@pytest.fixture
def know() -> Callable[..., None]:
    """Tells an engine fields of VkPhysicalDeviceLimits, and of `DEVICE_NUMBERS`, of its device."""
    fields = {field.name for field in load().structs["VkPhysicalDeviceLimits"].fields}

    def tell(host: Host, **numbers: int) -> None:
        limits = {name: number for name, number in numbers.items() if name in fields}
        view = Scratch().new("VkPhysicalDeviceLimits", **limits)
        host.device_table.know_limits(view, dict.fromkeys(DEVICE_NUMBERS, 0) | numbers)

    return tell
