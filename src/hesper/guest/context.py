"""A guest context: what the frontends talk to and the handlers work on."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hesper.guest import regions, teardown
from hesper.guest.errors import InvalidParameterError, OutOfMemoryError
from hesper.guest.handlers import asleep, bind
from hesper.guest.refusals import result_name
from hesper.guest.resources import Resources
from hesper.kernel import port
from hesper.kernel.engine import Engine
from hesper.kernel.errors import ProtocolError
from hesper.kernel.vulkan import Vulkan
from hesper.limits import Limits
from hesper.log import get_logger
from hesper.protocol.virtgpu import BLOB_FLAGS, BlobFlag

if TYPE_CHECKING:
    from hesper.guest.device import Device
    from hesper.guest.instance import Instance
    from hesper.host.drivers import Driver
    from hesper.host.profile import Profile
    from hesper.kernel.shm import Pool, Region
    from hesper.kernel.tape import Tape

log = get_logger(__name__)


class Context:
    """One guest context.

    Life: construct, use from any threads, `close` once nobody uses it.  The frontend calls
    `submit` from one thread at a time.  Errors that leave the context usable are `ResourceError`;
    a `ProtocolError` means that it is poisoned (see `fatal`).
    """

    def __init__(  # noqa: PLR0913  all but two are given by name
        self,
        driver: Driver,
        *,
        name: str,
        on_fatal: Callable[[str], None],
        limits: Limits | None = None,
        profile: Profile | None = None,
        patience: int | None = None,
        window: int | None = None,
        cache_key: bytes | None = None,
        tape: Tape | None = None,
        emulates: bool = True,
    ) -> None:
        """Open `driver`, whose `environment` is this process's; nothing is asked of it yet.

        name: what the guest calls itself, for the log.  on_fatal: called once, from any thread,
        with one line, when the context is poisoned.  profile: what to mask the driver down to.
        patience: microseconds for which threads look out for what comes next before they block;
        None: what suits the device and this machine.  window: bytes in which the guest can map
        memory, where that is bounded.  cache_key: what pipeline caches are signed with, up to 64
        bytes; None: with a key of this context alone.  tape: what everything is noted on.
        emulates: whether features that a driver lacks are supplied (`stand_ins`).
        Raises `kernel.engine.VulkanLoadError`.
        """
        self.name = name
        self.limits = limits or Limits()
        self.profile = profile
        self.patience = patience
        self.window = window
        self.cache_key = cache_key or secrets.token_bytes(32)
        self.tape = tape
        self.emulates = emulates
        self._on_fatal = on_fatal
        self.driver = driver
        self.vulkan = Vulkan(driver.library)
        self.engine = Engine(
            self.vulkan,
            bind(self),
            arena_limit=self.limits.arena,
            object_limit=self.limits.objects,
            resource_limit=self.limits.resources,
            memory_limit=self.limits.most_memory,
            most={
                "devices": self.limits.devices,
                "threads": self.limits.threads,
                "descriptors": self.limits.descriptors,
                "fences": self.limits.fences,
            },
            on_fatal=self._fatal,
            asleep=asleep(),
            on_notice=self._notice,
            tape=tape,
        )
        self.lock = threading.Lock()
        self.resources = Resources(self.engine)
        self.port = self.engine.port(
            create_blob=self._create_blob, destroy_blob=self.resources.destroy
        )
        """`submit`, `fence`, `create_blob` and `destroy_blob` for compiled frontends."""
        self.instance: Instance | None = None
        self.devices: dict[int, Device] = {}
        self.devices_made = 0
        """How many there have ever been."""
        self.frames = 0
        """Images of swapchains that the guest has got to draw to."""
        self.is_abandoned = False
        """Whether `close` has left work on the driver that did not end; the process must end."""
        self._has_instance = False
        self._is_closed = False
        self._said: set[str] = set()

    @property
    def pool(self) -> Pool:
        """The context's shared memory."""
        return self.engine.pool

    @property
    def fatal(self) -> bool:
        """Whether the guest has broken the protocol; only `close` makes sense then."""
        return self.engine.fatal

    def first_of(self, kind: str) -> bool:
        """Whether nothing of that kind has been said: a guest is not to flood the log with it."""
        is_first = kind not in self._said
        self._said.add(kind)
        return is_first

    def poison(self, reason: str) -> None:
        """End whatever the guest has running, as if it had broken the protocol.

        For a frontend whose guest is gone or unwanted; any thread may call it.
        """
        self.engine.poison(reason)

    def _fatal(self, reason: str) -> None:
        self._note_end(reason)
        self._on_fatal(reason)

    def _note_end(self, reason: str) -> None:
        """Note how the context ends, once."""
        if self.tape is not None and self.first_of("end"):
            self.tape.end(reason)

    def _notice(self, event: str, facts: dict[str, Any]) -> None:
        if "result" in facts:
            facts = {**facts, "result": result_name(facts["result"])}
        log.warning(event, context=self.name, driver=self.driver.name, **facts)

    def submit(self, data: bytes | bytearray | memoryview) -> None:
        """Run the commands in `data`.  Raises `kernel.errors.ProtocolError`."""
        port.submit(self.port, data)

    def create_blob(self, resource_id: int, blob_id: int, size: int, flags: int) -> int:
        """Make a resource of `size` bytes, and return a descriptor of its shared memory.

        The descriptor stays the context's and is valid until the resource is destroyed; the memory
        has whole host pages, and is ordinary cached memory wherever it is mapped.
        blob_id: 0 for plain shared memory, else the guest id of a host-visible VkDeviceMemory
        that the resource is to share.  flags: see `protocol.virtgpu.BlobFlag`.
        Raises `InvalidResourceError`, `InvalidParameterError`, `OutOfMemoryError`.
        """
        return port.create_blob(self.port, resource_id, blob_id, size, flags)

    def _create_blob(self, resource_id: int, blob_id: int, size: int, flags: int) -> int:
        """Make the resource, or say why not, when the kernel cannot."""
        self.resources.check_new(resource_id)
        if not 0 < size < 1 << 63:
            raise InvalidParameterError(f"blob of {size} bytes")
        if flags & ~BLOB_FLAGS:
            raise InvalidParameterError(f"blob flags {flags:#x}")
        if blob_id:
            apart = bool(flags & ~BlobFlag.USE_MAPPABLE)
            region = self._shared_memory(blob_id, size, apart=apart)
        else:
            region = regions.create(self.pool, size, f"hesper-{self.name}")
        fd = region.fd
        self.resources.add(resource_id, region, size, is_stream=not blob_id)
        return fd

    def _shared_memory(self, memory_id: int, size: int, *, apart: bool) -> Region:
        """Return the region of a VkDeviceMemory, with one owner more."""
        try:
            region = self.engine.devices.share_memory(memory_id, apart=apart)
        except (KeyError, OverflowError):
            failure = self.engine.objects.failure(memory_id) if memory_id < 1 << 64 else None
            if failure is not None:
                raise OutOfMemoryError(
                    f"the allocation of memory {memory_id} has failed: VkResult {failure}"
                ) from None
            raise InvalidParameterError(
                f"blob {memory_id} is no host-visible device memory"
            ) from None
        there = region.size
        if size > there:
            region.release()
            raise InvalidParameterError(f"blob {memory_id} has {there} bytes, {size} are asked for")
        return region

    def import_resource(self, resource_id: int, fd: int, size: int) -> None:
        """Make a resource of `size` bytes of memory that somebody else has made.

        fd: a memory object; the caller keeps it and may close it at once.
        Raises `InvalidResourceError`, `InvalidParameterError`, `OutOfMemoryError`.
        """
        self.resources.check_new(resource_id)
        region = regions.adopt(self.pool, fd, size)
        self.resources.add(resource_id, region, size, is_stream=False)
        if self.tape is not None:
            self.tape.imported(resource_id, size)

    def destroy_resource(self, resource_id: int) -> None:
        """Forget a resource.  A ring that lies in it poisons the context.

        Raises `InvalidResourceError`.
        """
        port.destroy_blob(self.port, resource_id)

    def fence(self, ring_idx: int, retired: Callable[[], None]) -> None:
        """Call `retired` once what a timeline has to do so far is done.

        ring_idx: 0 is the CPU's timeline, where everything has been done: `retired` is called
        at once.  Others are bound to queues; `retired` is called from a thread, in order.
        Raises `InvalidParameterError` for a timeline that is bound to no queue.
        """
        port.fence(self.port, ring_idx, partial(_call, retired))

    def device(self, device_id: int) -> Device:
        """The device with that guest id.  Raises `ProtocolError`."""
        try:
            return self.devices[device_id]
        except KeyError:
            raise ProtocolError(f"no device {device_id}") from None

    def begin_instance(self) -> None:
        """Note that an instance is being made.  Raises `ProtocolError` if there is one."""
        with self.lock:
            if self._has_instance:
                raise ProtocolError("a context has one instance only")
            self._has_instance = True

    def end_instance(self) -> None:
        """Note that no instance was made after all."""
        self._has_instance = False

    def take_instance(self, instance: Instance) -> bool:
        """Forget the instance; False if another thread has done so."""
        with self.lock:
            if self.instance is not instance:
                return False
            self.instance = None
            self._has_instance = False
            return True

    def take_device(self, device: Device) -> bool:
        """Forget a device; False if another thread has done so."""
        with self.lock:
            return self.devices.pop(device.id, None) is not None

    def close(self) -> None:
        """Free everything, whatever the guest has left behind.

        Fences that are still pending are retired.  A driver whose queues do not come to rest is
        given up after `teardown.DRAIN_SECONDS` (see `is_abandoned`).  May be called again, and
        then tries again what was given up.
        """
        with self.lock:
            if self._is_closed and not self.is_abandoned:
                return
            self._is_closed = True
        log.debug("ledger", context=self.name, **self.engine.ledger.figures())
        self.engine.stop()
        try:
            if self.instance is not None:
                teardown.destroy_instance(self, self.instance)
        except teardown.BusyError as error:
            log.error("driver given up", context=self.name, reason=str(error))
            self.is_abandoned = True
            return
        self.is_abandoned = False
        self.engine.shares.leave()
        if self.tape is not None:
            self.tape.last()
            self._note_end("")
        self.resources.close()
        self.pool.close()


def _call(retired: Callable[[], None]) -> None:
    """Call a frontend's function; what it raises must not reach the kernel."""
    try:
        retired()
    except Exception:
        log.exception("a fence's callback failed")
