"""What a device and the worker of one guest context say to each other.

Messages are those of `portable.send_message`.  Each begins with its kind (u32); what follows is a
struct of this file, and for `SUBMIT` and `FATAL` the rest.  Host byte order: both are on one host.
The worker is not trusted: a guest may have taken it over.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from hesper.portable import MAX_MESSAGE


class Down(IntEnum):
    """From the device."""

    NAME = 1
    """The context's name (UTF-8 follows)."""
    SUBMIT = 2
    """Commands, which follow."""
    CREATE_BLOB = 3
    """Make a blob; answered by `Up.BLOB`."""
    IMPORT = 4
    """Know a resource that another context has made; its descriptor comes along."""
    DESTROY = 5
    """Forget a resource."""
    FENCE = 6
    """Answer with `Up.RETIRED` when a timeline has done all it had to do so far."""
    FIGURES = 7
    """Answer with `Up.FIGURES`."""


class Up(IntEnum):
    """From the worker."""

    BLOB = 1
    """A blob is made, its descriptor comes along if it can be mapped; or it is refused."""
    RETIRED = 2
    """A fence has signalled."""
    FATAL = 3
    """The context is lost (the reason follows as UTF-8)."""
    FIGURES = 4
    """What the context has done and holds."""


class CreateBlob(NamedTuple):
    """Arguments of `Down.CREATE_BLOB`."""

    serial: int
    resource_id: int
    flags: int
    blob_id: int
    size: int


KIND = Struct("=I")

CREATE_BLOB = Struct("=IIIQQ")
"""The fields of `CreateBlob`."""

IMPORT = Struct("=IQ")
"""resource id, size"""

DESTROY = Struct("=I")
"""resource id"""

FENCE = Struct("=IQ")
"""ring_idx, serial"""

BLOB = Struct("=III")
"""serial, `Response` of virtio-gpu, map info"""

RETIRED = Struct("=Q")
"""serial of the fence"""

FIGURES = Struct("=QQQ")
"""Vulkan commands and bytes of command stream so far, bytes of memory in use"""

MAX_SUBMIT = MAX_MESSAGE - KIND.size
"""Most bytes of commands in one `SUBMIT`.  Mesa's are some hundred: the rest goes over rings."""
