"""What a device and the worker of one guest context say to each other.

Messages are those of `portable.send_message`.  Each begins with its kind (u32); what follows is a
struct of this file, and for `SUBMIT` and `FATAL` the rest.  Host byte order: both are on one host.
The worker is not trusted: a guest may have taken it over.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from hesper.portable import FRAME, MAX_MESSAGE


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
    TRACE = 8
    """Note in shared memory, whose descriptor comes along, what happens."""


class Up(IntEnum):
    """From the worker."""

    BLOB = 1
    """A blob is made, its descriptor comes along if it can be mapped; or it is refused."""
    RETIRED = 2
    """A fence has signalled."""
    FATAL = 3
    """The context is lost (the reason follows as UTF-8)."""
    FIGURES = 4
    """What the context has done and holds: `figures.Figures` in JSON."""


class Frame(NamedTuple):
    """What a message begins with, see `portable.FRAME`."""

    length: int
    """Bytes that follow, the kind first."""
    descriptors: int
    kind: int


class CreateBlob(NamedTuple):
    """Of `Down.CREATE_BLOB`."""

    serial: int
    resource_id: int
    flags: int
    blob_id: int
    size: int


class Destroy(NamedTuple):
    """Of `Down.DESTROY`."""

    resource_id: int


class Fence(NamedTuple):
    """Of `Down.FENCE`."""

    ring_idx: int
    serial: int


class Blob(NamedTuple):
    """Of `Up.BLOB`."""

    serial: int
    response: int
    """A `Response` of virtio-gpu."""
    map_info: int


class Retired(NamedTuple):
    """Of `Up.RETIRED`."""

    serial: int
    """Of the fence."""


KIND = Struct("=I")
CREATE_BLOB = Struct("=IIIQQ")
IMPORT = Struct("=IQ")
"""resource id, size"""
DESTROY = Struct("=I")
FENCE = Struct("=IQ")
BLOB = Struct("=III")
RETIRED = Struct("=Q")
FIGURES = Struct("=d")
"""seconds for which the context's queues are to be timed"""
TRACE = Struct("=d")
"""seconds for which what happens is to be noted"""

LAYOUTS = {
    Frame: Struct(FRAME.format + "I"),
    CreateBlob: CREATE_BLOB,
    Destroy: DESTROY,
    Fence: FENCE,
    Blob: BLOB,
    Retired: RETIRED,
}
"""How messages are packed that compiled code reads and writes."""

MAX_SUBMIT = MAX_MESSAGE - KIND.size
"""Most bytes of commands in one `SUBMIT`.  Mesa's are some hundred: the rest goes over rings."""

MAX_UP = 4096
"""Most bytes of a message of the worker; the longest is the reason of a `FATAL`, some thousand."""
