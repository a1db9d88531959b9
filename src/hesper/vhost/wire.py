"""What the bytes of vhost-user mean: numbers and structs, no behaviour.

Source: QEMU's documentation, "Vhost-user Protocol" (docs/interop/vhost-user.rst), of release 11.1.
All numbers are in host byte order; Hesper supports little-endian hosts only.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple


class Request(IntEnum):
    """Requests of the front-end (the VMM)."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GPU_SET_SOCKET = 33
    GET_SHMEM_CONFIG = 44


class BackendRequest(IntEnum):
    """Requests of the back-end (this device), on the channel of `SET_BACKEND_REQ_FD`."""

    CONFIG_CHANGE_MSG = 2
    SHMEM_MAP = 9
    SHMEM_UNMAP = 10


class Flag(IntFlag):
    """Flags of a message header; the two lowest bits are the version."""

    VERSION = 0x1
    VERSION_MASK = 0x3
    REPLY = 0x4
    NEED_REPLY = 0x8


class ProtocolFeature(IntFlag):
    """`VHOST_USER_PROTOCOL_F_*`, as a mask."""

    MQ = 1 << 0
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9
    BACKEND_SEND_FD = 1 << 10
    SHMEM = 1 << 22


F_PROTOCOL_FEATURES = 1 << 30
"""`VHOST_USER_F_PROTOCOL_FEATURES`: a device feature bit that stands for all of the above."""

VRING_INDEX_MASK = 0xFF
"""Which queue a descriptor is for, in the payload of `SET_VRING_KICK`, `_CALL` and `_ERR`."""

VRING_NO_FD = 0x100
"""No descriptor comes with the message: the queue is to be polled, or nobody to be told."""

SHMEM_MAP_WRITABLE = 1 << 0
"""Flag of `SHMEM_MAP`: the guest may write to the pages."""

MAX_PAYLOAD = 4096
"""No message Hesper takes is longer."""

MAX_FDS = 32
"""Most descriptors a message may carry: one a memory region, of which QEMU sends up to 8."""

MAX_SHMEM_REGIONS = 256

HEADER = Struct("=III")
"""request, flags, payload size"""

U64 = Struct("=Q")

VRING_STATE = Struct("=II")
"""queue index, number"""

VRING_ADDR = Struct("=IIQQQQ")
"""queue index, flags, descriptor table, used ring, available ring, log; user addresses"""

MEMORY_HEADER = Struct("=II")
"""number of regions, padding"""

MEMORY_REGION = Struct("=QQQQ")
"""guest address, size, user address, offset in the descriptor"""

CONFIG_HEADER = Struct("=III")
"""offset, size, flags"""

SHMEM_CONFIG = Struct(f"=II{MAX_SHMEM_REGIONS}Q")
"""number of regions, padding, size of every region by its id"""

MMAP = Struct("=B7xQQQQ")
"""region id, offset in the descriptor, offset in the region, length, flags"""


class MemoryRegionEntry(NamedTuple):
    """One region of `SET_MEM_TABLE`."""

    guest_address: int
    size: int
    user_address: int
    fd_offset: int


class VringAddresses(NamedTuple):
    """Where a queue lies, in the front-end's user addresses (`SET_VRING_ADDR`)."""

    descriptors: int
    used: int
    available: int
