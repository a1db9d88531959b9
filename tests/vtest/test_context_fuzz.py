"""Whatever a client sends to what a worker runs, session, context, rings and driver: it ends.

Set HESPER_FUZZ_EXAMPLES to hunt for longer, under `scripts/sanitize` for instance:

    HESPER_FUZZ_EXAMPLES=20000 scripts/sanitize tests/vtest/test_context_fuzz.py
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from served_context import ServedContext
from vtest_client import readable

from hesper.isolation.driver import OpenDriver, open_driver
from hesper.protocol.codec import Codec
from hesper.vtest.service import Options, VtestService
from open_files import assert_closed_since, open_files
from protocol.relating import Relating

EXAMPLES = int(os.environ.get("HESPER_FUZZ_EXAMPLES", "60"))
CODEC = Codec()
MODEL = CODEC.model
SECONDS = 30.0
INSTANCE, PHYSICAL_DEVICE, DEVICE, QUEUE = 1, 2, 3, 4
IDS = (0, INSTANCE, PHYSICAL_DEVICE, DEVICE, QUEUE, *range(5, 12), 1 << 40)
BLOB = 1 << 16
HEAD, TAIL, STATUS, BUFFER, SIZE = 0, 64, 128, 4096, 1 << 14

PREFIXES = (
    *("vkCreateFence", "vkCreateSemaphore", "vkCreateEvent"),
    *("vkGetPhysicalDevice", "vkEnumerate"),
)
NAMES = {
    *("vkAllocateMemory", "vkFreeMemory", "vkGetDeviceMemoryCommitment"),
    *("vkCreateDevice", "vkCreateInstance", "vkDestroyDevice", "vkDestroyInstance"),
    *("vkDestroyEvent", "vkDestroyFence", "vkDestroySemaphore"),
    *("vkGetDeviceQueue", "vkGetDeviceQueue2", "vkQueueWaitIdle", "vkDeviceWaitIdle"),
    *("vkGetFenceStatus", "vkResetFences", "vkWaitForFences", "vkQueueSubmit"),
}
COMMANDS = sorted(
    name
    for name, command in MODEL.commands.items()
    # Of the transport all, but what copies images.
    if not command.refused
    and (name.startswith(PREFIXES) or name in NAMES or name.endswith("MESA"))
    and not (name.endswith("MESA") and "Image" in name)
)
"""What has to hold for any values: Hesper's own commands, and those that a driver is asked about by
Python.  With wrong values for the others a guest may ruin the driver, in a process of its own."""


@cache
def opened() -> tuple[Options, OpenDriver]:
    """The driver, opened once."""
    wanted = Options(driver="lavapipe", handshake_timeout=SECONDS)
    host = open_driver(wanted)
    host.warm_up()
    return wanted, host


def encoded(name: str, seed: int) -> bytes:
    """A command with any values, whose ids and sizes often mean something."""
    rng = random.Random(seed)
    values = Relating(MODEL, rng, lambda _: rng.choice(IDS), lambda: rng.choice(IDS[1:]))
    parameters = values.parameters(MODEL.commands[name])
    return CODEC.encode(name, parameters, reply=rng.random() < 0.5)


def beginning(resource: int) -> bytes:
    """Where replies go, an instance and a device: what most commands need to come far."""
    stream = {"resourceId": resource, "offset": BLOB // 2, "size": BLOB // 2}
    queue = {"queueFamilyIndex": 0, "queueCount": 1, "pQueuePriorities": [1.0]}
    found = {"instance": INSTANCE, "pPhysicalDeviceCount": 1, "pPhysicalDevices": [PHYSICAL_DEVICE]}
    timeline = ("VkDeviceQueueTimelineInfoMESA", {"ringIdx": 1})
    wanted = {"queueFamilyIndex": 0, "queueIndex": 0, "pNext": [timeline]}
    return b"".join(
        CODEC.encode(name, parameters)
        for name, parameters in (
            ("vkSetReplyCommandStreamMESA", {"pStream": stream}),
            ("vkCreateInstance", {"pCreateInfo": {}, "pInstance": INSTANCE}),
            ("vkEnumeratePhysicalDevices", found),
            (
                "vkCreateDevice",
                {
                    "physicalDevice": PHYSICAL_DEVICE,
                    "pCreateInfo": {"queueCreateInfoCount": 1, "pQueueCreateInfos": [queue]},
                    "pDevice": DEVICE,
                },
            ),
            ("vkGetDeviceQueue2", {"device": DEVICE, "pQueueInfo": wanted, "pQueue": QUEUE}),
        )
    )


def ring(resource: int) -> bytes:
    """Make a ring at the beginning of a resource."""
    info = {
        "resourceId": resource, "offset": 0, "size": BLOB // 2, "idleTimeout": 1_000_000,
        "headOffset": HEAD, "tailOffset": TAIL, "statusOffset": STATUS, "bufferOffset": BUFFER,
        "bufferSize": SIZE, "extraOffset": BUFFER + SIZE, "extraSize": 4,
    }  # fmt: skip
    return CODEC.encode("vkCreateRingMESA", {"ring": 9, "pCreateInfo": info})


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Some commands, of which a few bytes may be damaged."""
    commands = draw(
        st.lists(
            st.tuples(st.sampled_from(COMMANDS), st.integers(0, 1 << 32)), min_size=1, max_size=6
        )
    )
    data = bytearray(b"".join(encoded(name, seed) for name, seed in commands))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: SIZE // 4 * 4])


@contextlib.contextmanager
def attack() -> Iterator[ServedContext]:
    """A client that has shaken hands; it leaves nothing behind."""
    before = open_files(), mappings()
    one = ServedContext(VtestService(*opened()))
    try:
        one.client.handshake()
        with contextlib.suppress(ConnectionError, EOFError, TimeoutError):
            yield one
    finally:
        one.end(SECONDS)
    assert_closed_since(before[0])
    assert mappings() <= before[1]


def mappings() -> int:
    """How many pieces of Hesper's shared memory this process has mapped."""
    return Path("/proc/self/maps").read_text().count("hesper-")


def test_what_attacks_begin_with_works() -> None:
    with attack() as one:
        resource, fd = one.client.create_blob(BLOB)
        os.close(fd)
        one.client.submit((beginning(resource) + ring(resource), [], None))
        sync = one.client.sync(0)
        one.client.submit((b"", [(sync, 1)], 1))
        through = one.client.wait([(sync, 1)])
        assert readable(through)
        os.close(through)


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(streams(), st.integers(0, 3)), min_size=1, max_size=4), st.booleans())
def test_whatever_is_submitted(batches: list[tuple[bytes, int]], ready: bool) -> None:
    with attack() as one:
        resource, fd = one.client.create_blob(BLOB)
        os.close(fd)
        if ready:
            one.client.submit((beginning(resource), [], None))
        sync = one.client.sync(0)
        for value, (data, ring_idx) in enumerate(batches, 1):
            one.client.submit((data, [(sync, value)], ring_idx))
        one.client.sock.settimeout(0.2)  # it may wait for what never comes
        one.client.flush()


@settings(max_examples=EXAMPLES)
@given(
    st.lists(streams(), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.sampled_from([HEAD, TAIL, STATUS]), st.integers(0, (1 << 32) - 1)), max_size=2
    ),
)
def test_whatever_stands_in_a_ring(pieces: list[bytes], scribbles: list[tuple[int, int]]) -> None:
    with attack() as one:
        resource, fd = one.client.create_blob(BLOB)
        with mmap.mmap(fd, BLOB) as memory:
            os.close(fd)
            one.client.submit((beginning(resource) + ring(resource), [], None))
            one.client.flush()
            tail = 0
            for data in pieces:
                for at in range(tail, tail + len(data)):
                    memory[BUFFER + at % SIZE] = data[at - tail]
                tail += len(data)
                memory[TAIL : TAIL + 4] = tail.to_bytes(4, "little")
                one.client.submit((CODEC.encode("vkNotifyRingMESA", {"ring": 9}), [], None))
            for offset, value in scribbles:
                memory[offset : offset + 4] = value.to_bytes(4, "little")
            one.client.sock.settimeout(0.2)
            one.client.flush()
