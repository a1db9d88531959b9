"""Resources of device memory, made and forgotten without Python where the kernel can."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

import pytest
from vtest_client import Client, FakeContext, FakeHost, Served, close_all

from hesper.bench.client import loops
from hesper.guest import regions
from hesper.kernel.engine import Engine
from hesper.kernel.port import Port
from hesper.kernel.shm import Region
from hesper.kernel.vulkan import Vulkan
from hesper.portable import SharedMemory, page_size
from open_files import assert_closed_since, open_files

MEMORY = 77
MAPPABLE, SHAREABLE = 1, 2
UNREF, CREATE_BLOB = 3, 18


class KernelContext(FakeContext):
    """Submits to a real engine that has one VkDeviceMemory; notes what is left to Python."""

    def __init__(self) -> None:
        super().__init__()
        vulkan = Vulkan(loops.__file__)
        self.engine = Engine(
            vulkan,
            {},
            arena_limit=1 << 20,
            object_limit=10,
            resource_limit=3,
            memory_limit=1 << 20,
            on_fatal=print,
        )
        self.engine.objects.add(1, "VkInstance", 1, table=vulkan.instance_table(1))
        self.region: Region = regions.create(
            self.engine.pool, page_size(), "hesper-test", reusable=True
        )
        self.engine.objects.add(
            MEMORY, "VkDeviceMemory", MEMORY, parent=1, region=self.region.share()
        )
        self.python: list[str] = []

    @property
    def port(self) -> Port:
        return self.engine.port(create_blob=self.create_blob, destroy_blob=self.destroy_resource)

    def create_blob(self, resource_id: int, blob_id: int, size: int, flags: int) -> int:
        self.python.append(f"create {resource_id}")
        return super().create_blob(resource_id, blob_id, size, flags)

    def destroy_resource(self, resource_id: int) -> None:
        self.python.append(f"destroy {resource_id}")
        if resource_id in self.blobs:
            super().destroy_resource(resource_id)
        else:
            self.engine.resources.remove(resource_id)

    def close(self) -> None:
        super().close()
        self.engine.stop()
        for resource in self.engine.resources.ids():
            self.engine.resources.remove(resource)
        self.engine.objects.remove(MEMORY)
        del self.region
        self.engine.pool.close()


@pytest.fixture
def context() -> Iterator[KernelContext]:
    before = open_files()
    yield KernelContext()
    assert_closed_since(before)


@pytest.fixture
def client(context: KernelContext) -> Iterator[Client]:
    host = FakeHost()
    host.context = context
    served = Served(host)
    served.client.handshake()
    yield served.client
    assert served.end() == ""


def create(
    client: Client, memory: int = MEMORY, size: int = 100, flags: int = MAPPABLE
) -> tuple[int, int]:
    client.send(CREATE_BLOB, struct.pack("<IIQQ", 2, flags, size, memory))
    return struct.unpack("<I", client.reply().data)[0], client.descriptor()


def test_a_blob_of_device_memory_needs_no_python(context: KernelContext, client: Client) -> None:
    first, fd = create(client)
    with (
        SharedMemory.from_fd(fd, 100) as guests,
        SharedMemory.from_fd(context.region.fd, 100) as hosts,
    ):
        guests.view[3] = 42
        assert hosts.view[3] == 42
    assert context.engine.resources.ids() == [first]
    client.words(UNREF, first)
    client.flush()
    assert context.engine.resources.ids() == []
    again, other = create(client)
    assert again == first
    assert context.python == []
    close_all(fd, other)


def test_what_the_kernel_cannot_do_is_left_to_python(
    context: KernelContext, client: Client
) -> None:
    blobs = [create(client, MEMORY + 1), create(client, 0), create(client, size=1 << 20)]
    assert context.python == ["create 1", "create 2", "create 3"]
    for resource, fd in blobs:
        client.words(UNREF, resource)
        os.close(fd)
    client.flush()
    assert context.python[3:] == ["destroy 1", "destroy 2", "destroy 3"]


def test_the_limit_of_resources_holds(context: KernelContext, client: Client) -> None:
    fds = [create(client)[1] for _ in range(4)]
    assert context.python == ["create 4"]
    close_all(*fds)


@pytest.mark.parametrize("flags", [MAPPABLE, MAPPABLE | SHAREABLE])
def test_what_others_may_map_is_not_used_again(
    context: KernelContext, client: Client, flags: int
) -> None:
    resource, fd = create(client, flags=flags)
    client.words(UNREF, resource)
    client.flush()
    size = context.region.size
    context.region.release()
    context.engine.objects.remove(MEMORY)
    assert (context.engine.pool.take(size, 1) is not None) == (flags == MAPPABLE)
    assert context.python == []
    os.close(fd)


def test_a_message_in_pieces_finds_what_the_kernel_has_made(
    context: KernelContext, client: Client
) -> None:
    resource, fd = create(client)
    for byte in struct.pack("<III", 1, UNREF, resource):
        client.sock.sendall(bytes([byte]))
        time.sleep(0.002)
    client.flush()
    assert context.engine.resources.ids() == []
    os.close(fd)


def test_ids_are_used_again_when_there_are_many() -> None:
    served = Served()
    client = served.client
    client.handshake()
    made = [client.create_blob(1) for _ in range(150)]
    assert [resource for resource, _ in made] == list(range(1, 151))
    for resource, fd in made[70:80]:
        client.words(UNREF, resource)
        os.close(fd)
    again = [client.create_blob(1) for _ in range(11)]
    assert {resource for resource, _ in again} == {*range(71, 81), 151}
    close_all(*(fd for _, fd in made[:70] + made[80:] + again))
    client.words(UNREF, 152)
    assert "RESOURCE_UNREF: no resource 152" in served.result()
