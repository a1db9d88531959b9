"""The inner layer of a recording: what a context was told, a record each.

Records stand in chunks of the kind `chunks.RECORDS`, one after the other.  A record is a head
(`HEAD`) and its body; a long one is cut into pieces, of which all but the last have `MORE`, and
which other streams' records may lie between.  The kernel writes them (`kernel/core/tape.pxd`).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

import msgspec

from hesper.trace.chunks import ABOUT, MAGIC, ChunkReader, RecordingError

HEAD = struct.Struct("<BBHIQQ")
"""Kind, flags, 0, bytes of the body, nanoseconds since the beginning, stream."""

PIECE = 1 << 20
"""Bytes of a piece of a long record."""
MOST_BODY = 512 << 20
"""Bytes of a record, all pieces together; and of all that are not whole yet."""
PIECE_COST = 512
"""Bytes that a piece counts besides: there could be any number of empty ones."""
FREE_RECORDS = 1 << 18
"""Records that a file may have however small it is.  Of others none takes less than a byte of it:
each has its own times, which no compression takes away."""


class Kind(enum.IntEnum):
    """What a record tells."""

    COMMAND = 1
    """A command that has run: `COMMAND_BODY`, its bytes, its reply.  In the order they ended."""
    BEGUN = 2
    """A command has begun that does more than to record: its number (u32)."""
    MEMORY = 3
    """What the guest may have written before a submission: `MEMORY_BODY`, bytes."""
    BLOB = 4
    """The guest has made a resource: `BLOB_BODY`."""
    GONE = 5
    """It has given a resource back: its id (u32)."""
    FENCE = 6
    """It has asked for a fence: `FENCE_BODY`."""
    RETIRED = 7
    """A fence is through: `FENCE_BODY`, whose last number says whether the device was lost."""
    IMPORT = 8
    """Memory of others has become a resource: `MEMORY_BODY`, the offset being the size."""
    END = 9
    """The context is at its end: why, in UTF-8; empty where nothing was wrong."""
    LAST = 10
    """As MEMORY, what differs from then when a resource is given back, or in the end."""
    UNFINISHED = 11
    """The process has died while a command ran: what stands in its stream from there on."""
    WHOLE = 12
    """All that memory holds is noted from here on: what came before is not needed for it."""
    PICTURE = 13
    """What a part of a screen shows: `shown.BODY`, pixels."""


MORE, NESTED, FAILED, REPLIED, EARLIER = 1, 2, 4, 8, 16
"""Flags: another piece follows; from a stream in a resource; it broke the protocol; it was
answered; it happened before what is recorded, and lives on in it."""

COMMAND_BODY = struct.Struct("<QII")
"""Nanoseconds it took, bytes of its reply, 0."""
MEMORY_BODY = struct.Struct("<IIQ")
"""Resource, 0, offset."""
BLOB_BODY = struct.Struct("<IIQQ")
"""Resource, flags (`protocol.virtgpu.BlobFlag`), id of the VkDeviceMemory or 0, bytes."""
FENCE_BODY = struct.Struct("<IIQ")
"""Timeline, whether the device was lost, number of the fence."""

_SMALLEST = {
    Kind.COMMAND: COMMAND_BODY.size,
    Kind.BEGUN: 4,
    Kind.MEMORY: MEMORY_BODY.size,
    Kind.BLOB: BLOB_BODY.size,
    Kind.GONE: 4,
    Kind.FENCE: FENCE_BODY.size,
    Kind.RETIRED: FENCE_BODY.size,
    Kind.IMPORT: MEMORY_BODY.size,
    Kind.END: 0,
    Kind.LAST: MEMORY_BODY.size,
    Kind.UNFINISHED: 0,
    Kind.WHOLE: 0,
    Kind.PICTURE: 28,
}

LAYOUTS = {
    "head": "u8 kind, u8 flags, u16 0, u32 size, u64 time_ns, u64 stream",
    "COMMAND": "u64 duration_ns, u32 reply_size, u32 0, bytes command, bytes reply",
    "BEGUN": "u32 number",
    "MEMORY": "u32 resource, u32 0, u64 offset, bytes",
    "BLOB": "u32 resource, u32 flags, u64 memory, u64 size",
    "GONE": "u32 resource",
    "FENCE": "u32 timeline, u32 0, u64 number",
    "RETIRED": "u32 timeline, u32 lost, u64 number",
    "IMPORT": "u32 resource, u32 0, u64 size",
    "END": "utf-8 reason",
    "LAST": "u32 resource, u32 0, u64 offset, bytes",
    "UNFINISHED": "bytes of the stream",
    "WHOLE": "",
    "PICTURE": "u32 screen, u32 screen_width, u32 screen_height, u32 left, u32 top, u32 width,"
    " u32 height, bytes bgrx",
}
"""How records lie, for whoever has the file and not this source."""


class About(msgspec.Struct, kw_only=True):
    """What a recording is of: its first chunk, as msgpack."""

    hesper: str
    """Version of Hesper."""
    registry: int
    """Version of the Vulkan registry that the protocol was made of: VK_HEADER_VERSION."""
    program: str
    """What the guest calls itself."""
    driver: str
    """Name of the host's driver."""
    device: str
    """Name of the driver's best device."""
    profile: str = ""
    """Host profile that the driver was masked with."""
    transport: str
    """`vtest` or `virtio-gpu`."""
    started: float
    """Seconds since 1970."""
    page: int
    """Bytes of a page of the host's memory."""
    last: float = 0.0
    """Only what happened in about so many last seconds was to be kept; 0: everything."""
    records: dict[str, int] = {}
    """Kinds of records by name."""
    layouts: dict[str, str] = {}
    """How they lie."""


class Record(NamedTuple):
    """A record that is whole."""

    kind: Kind
    flags: int
    time: int
    """Nanoseconds since the recording began; of a command, when it began."""
    stream: int
    """0: the context's own; else the guest's id of the ring."""
    body: bytes
    offset: int
    """Of the chunk in the file in which it ends."""


class Reader:
    """Reads a recording.  `about` is there at once, records come by iterating, once."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read `file`, which is hostile, from its beginning.  Raises `RecordingError`."""
        self.chunks = ChunkReader(file)
        self._chunks = iter(self.chunks)
        first = next(self._chunks, None)
        if first is None or first.kind != ABOUT:
            raise RecordingError(f"byte {len(MAGIC)}: the recording does not say what it is of")
        try:
            self.about = msgspec.msgpack.decode(first.data, type=About)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise RecordingError(f"byte {first.offset}: what it is of: {error}") from None
        self.unfinished = 0
        """Records of which pieces are missing, when all has been read."""
        self.lacks_beginning = False
        """Whether what comes stands on what is not there."""

    @property
    def cut(self) -> int:
        """Where the file is cut off, -1 where it is not."""
        return self.chunks.cut

    @property
    def missing(self) -> int:
        """Chunks that were left out on purpose, for their age."""
        return self.chunks.missing

    def __iter__(self) -> Iterator[Record]:
        """The records.  Raises `RecordingError`."""
        pieces: dict[tuple[int, int], list[bytes]] = {}
        held = count = 0
        first = True
        for chunk in self._chunks:
            if chunk.kind == ABOUT:
                raise RecordingError(f"byte {chunk.offset}: it says twice what it is of")
            self.lacks_beginning |= first and chunk.number != 1
            first = False
            try:
                for piece in split(chunk.data, chunk.offset):
                    count += 1
                    if count - FREE_RECORDS > self.chunks.position:
                        raise RecordingError(f"byte {chunk.offset}: more records than bytes")
                    if piece.flags & MORE:
                        held += len(piece.body) + PIECE_COST
                    else:
                        held -= _held(pieces, piece)
                    if held > MOST_BODY:
                        raise RecordingError(
                            f"byte {chunk.offset}: records of more than {MOST_BODY} bytes"
                        )
                    whole = join(pieces, piece)
                    if whole is not None:
                        yield whole
            except RecordingError:
                if not chunk.is_plain:
                    raise
                self.chunks.cut = chunk.offset
                break
        self.unfinished = len(pieces)


def _held(pieces: dict[tuple[int, int], list[bytes]], last: Record) -> int:
    """Bytes of the pieces that a last one belongs to, as they were counted."""
    return sum(len(body) + PIECE_COST for body in pieces.get((last.kind, last.stream), ()))


def join(pieces: dict[tuple[int, int], list[bytes]], piece: Record) -> Record | None:
    """The record that a piece is the last of; None: others follow.

    pieces: those that are not whole yet, by kind and stream.  Raises `RecordingError`.
    """
    key = (piece.kind, piece.stream)
    if piece.flags & MORE:
        pieces.setdefault(key, []).append(piece.body)
        return None
    whole = piece
    if key in pieces:
        whole = piece._replace(body=b"".join([*pieces.pop(key), piece.body]))
    if len(whole.body) < _SMALLEST[whole.kind]:
        raise RecordingError(f"byte {piece.offset}: {whole.kind.name} of {len(whole.body)} bytes")
    return whole


def split(data: bytes, offset: int) -> Iterator[Record]:
    """The pieces of records in a chunk that begins at `offset`.  Raises `RecordingError`."""
    at = 0
    while at < len(data):
        where = f"byte {offset}, in its chunk at {at}"
        if len(data) - at < HEAD.size:
            raise RecordingError(f"{where}: {len(data) - at} bytes are no record")
        number, flags, zero, size, time, stream = HEAD.unpack_from(data, at)
        if zero or flags & ~(MORE | NESTED | FAILED | REPLIED | EARLIER):
            raise RecordingError(f"{where}: a record with flags {flags:#x}")
        try:
            kind = Kind(number)
        except ValueError:
            raise RecordingError(f"{where}: there is no record of kind {number}") from None
        at += HEAD.size
        if size > len(data) - at:
            raise RecordingError(f"{where}: a record of {size} bytes, {len(data) - at} are left")
        yield Record(kind, flags, time, stream, data[at : at + size], offset)
        at += size


class Command(NamedTuple):
    """The body of a COMMAND."""

    duration: int
    """Nanoseconds."""
    data: bytes
    """As it stood in the stream."""
    reply: bytes


def command_of(record: Record) -> Command:
    """The parts of a COMMAND.  Raises `RecordingError`."""
    duration, reply_size, _ = COMMAND_BODY.unpack_from(record.body)
    end = len(record.body) - reply_size
    if end < COMMAND_BODY.size:
        raise RecordingError(
            f"byte {record.offset}: a reply of {reply_size} bytes in {len(record.body)}"
        )
    return Command(duration, record.body[COMMAND_BODY.size : end], record.body[end:])


def memory_of(record: Record) -> tuple[int, int, bytes]:
    """Resource, offset and bytes of a MEMORY, LAST or IMPORT."""
    resource, _, offset = MEMORY_BODY.unpack_from(record.body)
    return resource, offset, record.body[MEMORY_BODY.size :]


def put(kind: Kind, body: bytes, *, flags: int = 0, time: int = 0, stream: int = 0) -> bytes:
    """The bytes of a record in one piece."""
    return HEAD.pack(kind, flags, 0, len(body), time, stream) + body


def record_of(kind: Kind, body: bytes, *, time: int) -> Record:
    """A record that is to be written."""
    return Record(kind, 0, time, 0, body, 0)


def cut(record: Record) -> Iterator[bytes]:
    """The bytes of a record, in as many pieces as it takes."""
    at = 0
    while len(record.body) - at > PIECE:
        piece = record.body[at : at + PIECE]
        flags = record.flags | MORE
        yield put(record.kind, piece, flags=flags, time=record.time, stream=record.stream)
        at += PIECE
    body, flags = record.body[at:], record.flags
    yield put(record.kind, body, flags=flags, time=record.time, stream=record.stream)
