"""A guest by hand, which takes what it can get."""

from __future__ import annotations

import mmap
import socket
from typing import Any

from supervised import Supervised
from vtest_client import Client

from hesper.portable import process_usage
from hesper.protocol.codec import Codec, Reader
from hesper.vk.enumerants import VK_SUCCESS

CODEC = Codec()
MIB = 1 << 20
INSTANCE, PHYSICAL, DEVICE = 1, 2, 3


class Hostile:
    """A vtest client by hand."""

    def __init__(self, server: Supervised) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(server.path))
        self.server = server
        self.client = Client(sock)
        self.client.handshake()
        resource, fd = self.client.create_blob(MIB)
        self.replies = mmap.mmap(fd, MIB)
        self.send(
            "vkSetReplyCommandStreamMESA",
            pStream={"resourceId": resource, "offset": 0, "size": MIB},
        )
        info = {"pApplicationInfo": {"apiVersion": 1 << 22 | 3 << 12}}
        assert self.call("vkCreateInstance", pCreateInfo=info, pInstance=INSTANCE) == VK_SUCCESS
        self.call(
            "vkEnumeratePhysicalDevices",
            instance=INSTANCE,
            pPhysicalDeviceCount=1,
            pPhysicalDevices=[PHYSICAL],
        )
        assert self.make_device(DEVICE) == VK_SUCCESS

    def send(self, name: str, **parameters: Any) -> None:
        self.client.submit((CODEC.encode(name, parameters), [], None))

    def call(self, name: str, **parameters: Any) -> int:
        seek = CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 0})
        self.client.submit((seek + CODEC.encode(name, parameters, reply=True), [], None))
        self.client.flush()
        command, result, _ = CODEC.decode_reply(Reader(memoryview(self.replies)), parameters)
        assert command.name == name
        return result

    def make_device(self, number: int) -> int:
        queues = [{"queueFamilyIndex": 0, "queueCount": 1, "pQueuePriorities": [1.0]}]
        info = {"queueCreateInfoCount": 1, "pQueueCreateInfos": queues}
        return self.call(
            "vkCreateDevice", physicalDevice=PHYSICAL, pCreateInfo=info, pDevice=number
        )

    def stream(self, data: bytes) -> tuple[int, mmap.mmap]:
        """Shared memory with commands: its resource, and the mapping."""
        resource, fd = self.client.create_blob(len(data))
        memory = mmap.mmap(fd, len(data))
        memory[:] = data
        return resource, memory

    def resident(self) -> int:
        """Bytes of the largest worker."""
        return max(process_usage(pid).resident for pid in self.server.children())
