"""A guest in the test's own process: commands by name, through a real context and driver."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hesper.guest import Context, Limits
from hesper.host.drivers import Driver
from hesper.host.profile import Profile
from hesper.kernel.tape import Tape
from hesper.portable import SharedMemory
from hesper.protocol.codec import Codec, Reader

CODEC = Codec()
REPLY_RESOURCE = 1
REPLY_SIZE = 1 << 20

INSTANCE, PHYSICAL_DEVICE, DEVICE, QUEUE = 1, 2, 3, 4
FIRST_FREE_ID = 100
RING_IDX = 1
WAIT_SECONDS = 30.0


class Blob(NamedTuple):
    """A descriptor, which is the context's, and how many bytes there are."""

    fd: int
    size: int


class Guest:
    """Drives a context the way a guest's driver does, without rings.

    It has an instance, a device and a queue with a timeline once `start` was called.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        limits: Limits | None = None,
        profile: Profile | None = None,
        tape: Tape | None = None,
        emulates: bool = True,
    ) -> None:
        self.fatal: list[str] = []
        os.environ.update(driver.environment)
        self.context = Context(
            driver,
            name="test",
            on_fatal=self.fatal.append,
            limits=limits or Limits(),
            profile=profile,
            tape=tape,
            emulates=emulates,
        )
        self._next_id = FIRST_FREE_ID
        self._next_resource = REPLY_RESOURCE + 1
        fd = self.context.create_blob(REPLY_RESOURCE, 0, REPLY_SIZE, 1)
        self._replies = SharedMemory.from_fd(fd, REPLY_SIZE)
        stream = {"resourceId": REPLY_RESOURCE, "offset": 0, "size": REPLY_SIZE}
        self.send("vkSetReplyCommandStreamMESA", pStream=stream)

    def send(self, name: str, **parameters: Any) -> None:
        """Send a command that wants no reply."""
        self.context.submit(CODEC.encode(name, parameters))

    def call(self, name: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        """Send a command; return its result and its outputs."""
        seek = CODEC.encode("vkSeekReplyCommandStreamMESA", {"position": 0})
        self.context.submit(seek + CODEC.encode(name, parameters, reply=True))
        reader = Reader(self._replies.view)
        command, result, outputs = CODEC.decode_reply(reader, parameters)
        assert command.name == name
        return result, outputs

    def ask(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Send a command that must succeed; return its outputs."""
        result, outputs = self.call(name, **parameters)
        assert result == 0, f"{name}: {result}"
        return outputs

    def new_id(self) -> int:
        """A guest id that is free."""
        self._next_id += 1
        return self._next_id

    def create(self, type_: str, info: dict[str, Any]) -> int:
        """Make an object of the device; return its id."""
        command = CODEC.model.commands[f"vkCreate{type_}"]
        output = next(field.name for field in command.fields if field.output)
        guest_id = self.new_id()
        self.ask(command.name, device=DEVICE, pCreateInfo=info, **{output: guest_id})
        return guest_id

    def start(self, extensions: Sequence[bytes] = (), chain: Any = None) -> Guest:
        """Make instance, device and queue."""
        self.create_instance()
        self.enumerate()
        assert self.try_device(extensions=extensions, chain=chain)[0] == 0
        self.name_queue()
        return self

    def create_instance(self, version: int = 1 << 22 | 3 << 12) -> None:
        """Make the instance."""
        info = {"pApplicationInfo": {"apiVersion": version}}
        self.ask("vkCreateInstance", pCreateInfo=info, pInstance=INSTANCE)

    def enumerate(self) -> None:
        """Name the one physical device."""
        self.ask(
            "vkEnumeratePhysicalDevices",
            instance=INSTANCE,
            pPhysicalDeviceCount=1,
            pPhysicalDevices=[PHYSICAL_DEVICE],
        )

    def try_device(
        self,
        *,
        family: int = 0,
        count: int = 1,
        extensions: Sequence[bytes] = (),
        chain: Any = None,
    ) -> tuple[int, dict[str, Any]]:
        """Try to make a device."""
        queues = [
            {"queueFamilyIndex": family, "queueCount": count, "pQueuePriorities": [1.0] * count}
        ]
        info: dict[str, Any] = {
            "pNext": chain or [],
            "queueCreateInfoCount": 1,
            "pQueueCreateInfos": queues,
        }
        if extensions:
            info |= {
                "enabledExtensionCount": len(extensions),
                "ppEnabledExtensionNames": list(extensions),
            }
        return self.call(
            "vkCreateDevice", physicalDevice=PHYSICAL_DEVICE, pCreateInfo=info, pDevice=DEVICE
        )

    def name_queue(self, *, ring_idx: int = RING_IDX, index: int = 0, queue: int = QUEUE) -> None:
        """Name a queue and bind it to a timeline."""
        timeline = ("VkDeviceQueueTimelineInfoMESA", {"ringIdx": ring_idx})
        self.send(
            "vkGetDeviceQueue2",
            device=DEVICE,
            pQueueInfo={"pNext": [timeline], "queueIndex": index},
            pQueue=queue,
        )

    def allocate(self, size: int, *, type_: int = 0, chain: Any = None) -> tuple[int, int]:
        """Try to allocate device memory; return the VkResult and the id."""
        guest_id = self.new_id()
        info = {"pNext": chain or [], "allocationSize": size, "memoryTypeIndex": type_}
        result, _ = self.call(
            "vkAllocateMemory", device=DEVICE, pAllocateInfo=info, pMemory=guest_id
        )
        return result, guest_id

    def blob(self, blob_id: int, size: int) -> tuple[int, Blob]:
        """Make a blob resource; return its id and the blob."""
        resource_id = self._next_resource
        self._next_resource += 1
        fd = self.context.create_blob(resource_id, blob_id, size, 1)
        return resource_id, Blob(fd, os.fstat(fd).st_size)

    def wait_for_queue(self) -> None:
        """Wait until the queue is through, by a fence on its timeline."""
        through = threading.Event()
        self.context.fence(RING_IDX, through.set)
        assert through.wait(WAIT_SECONDS)

    def close(self) -> None:
        """Go away."""
        self._replies.close()
        self.context.close()


MakeGuest = Callable[..., Guest]
"""Makes a guest of the limits and the profile given."""
