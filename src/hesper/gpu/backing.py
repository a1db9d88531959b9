"""Guest memory behind a resource: many pieces, as a driver lists its pages.

A guest says how many there are, so they are kept small: pieces that touch become one *run*, and a
run is 18 bytes of arrays, not objects.  Reading a list and copying go a step at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from hesper.gpu.request import GpuError
from hesper.gpu.wire import MEM_ENTRY, Response

if TYPE_CHECKING:
    from hesper.gpu.guest_pages import GuestPages
    from hesper.gpu.transport import GuestRegion

Bytes = npt.NDArray[np.uint8]

GUEST_PAGE = 4096
"""The smallest page that a guest has: no driver lists memory in smaller pieces throughout."""
SPARE_PIECES = 256
"""Pieces that a list may have beyond one for every page."""
ENTRIES_A_STEP = 4096
RUNS_A_STEP = 512
"""Most runs that are copied between two looks at the clock, a microsecond each."""
BYTES_A_STEP = 1 << 18
"""Most bytes that are."""

_ENTRY = np.dtype([("address", "<u8"), ("length", "<u4"), ("padding", "<u4")])


def most_pieces(size: int) -> int:
    """Return how many pieces the memory of a resource of `size` bytes may lie in."""
    return -(-size // GUEST_PAGE) + SPARE_PIECES


class Runs(NamedTuple):
    """Runs of memory, in arrays: which region, first byte in it, how many bytes."""

    region: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


class Rows(NamedTuple):
    """Rows of a rectangle, which lie apart."""

    number: int
    stride: int
    """Bytes from one to the next."""
    size: int
    """Bytes of each."""

    def of(self, memory: Bytes) -> Bytes:
        """Return them as an array of shape (number, size); `memory` begins with the first."""
        return as_strided(memory, (self.number, self.size), (self.stride, 1))


class Backing:
    """Guest memory in several pieces, one after the other.  It stays for as long as it is used."""

    def __init__(self, regions: Sequence[Bytes], runs: Runs) -> None:
        """`runs` lie in `regions`; none of them is empty."""
        self._regions = regions
        self._region = runs.region.astype(np.uint16)
        self._first = runs.first
        self._ends = np.cumsum(runs.length)
        self.size = int(self._ends[-1]) if len(self._ends) else 0

    def __len__(self) -> int:
        """Count the runs."""
        return len(self._ends)

    def runs_in(self, start: int, size: int) -> int:
        """Count the runs that the `size` bytes from `start` on lie in; they must be there."""
        first, last = np.searchsorted(self._ends, [start, start + size - 1], side="right")
        return int(last - first) + 1

    @property
    def whole(self) -> Bytes | None:
        """All bytes, when they lie in one run."""
        if len(self) != 1:
            return None
        first = int(self._first[0])
        return self._regions[int(self._region[0])][first : first + self.size]

    def gather(self, start: int, out: Bytes) -> None:
        """Fill `out` with the bytes from `start` on; they must all be there.  From any thread."""
        for _ in self.steps(start, out):
            pass

    def steps(self, start: int, out: Bytes) -> Iterator[None]:
        """Do so in steps."""
        index = int(np.searchsorted(self._ends, start, side="right"))
        size = len(out)
        done = 0
        while done < size:
            window = slice(index, index + RUNS_A_STEP)
            runs = zip(
                self._region[window].tolist(),
                self._first[window].tolist(),
                self._ends[window].tolist(),
                strict=True,
            )
            begin = int(self._ends[index - 1]) if index else 0
            for region, first, end in runs:
                skip = start + done - begin
                count = min(end - begin - skip, size - done)
                for at in range(0, count, BYTES_A_STEP):
                    part = min(count - at, BYTES_A_STEP)
                    source = first + skip + at
                    out[done : done + part] = self._regions[region][source : source + part]
                    done += part
                    if part == BYTES_A_STEP:
                        yield
                begin = end
                if done == size:
                    break
            index += RUNS_A_STEP
            yield

    def row_steps(self, start: int, out: Bytes, rows: Rows) -> Iterator[None]:
        """Fill rows of `out`, in steps, with those that lie likewise from `start` on."""
        # What lies between may be memory that is touched for the first time, in huge pages.
        a_step = min(max(4 * BYTES_A_STEP // rows.stride, 1), RUNS_A_STEP)
        for index in range(0, rows.number, a_step):
            places = np.arange(index, min(index + a_step, rows.number)) * rows.stride
            begins = start + places
            first = np.searchsorted(self._ends, begins, side="right")
            last = np.searchsorted(self._ends, begins + (rows.size - 1), side="right")
            skipped = begins - np.where(first > 0, self._ends[first - 1], 0)
            each = zip(
                places.tolist(),
                (first == last).tolist(),
                self._region[first].tolist(),
                (self._first[first] + skipped).tolist(),
                strict=True,
            )
            for at, is_one, region, source in each:
                row = out[at : at + rows.size]
                if is_one:
                    row[:] = self._regions[region][source : source + rows.size]
                else:
                    yield from self.steps(start + at, row)
            yield


class _Regions:
    """A guest's memory, ready to look for many addresses at a time."""

    def __init__(self, regions: Sequence[GuestRegion]) -> None:
        regions = [region for region in regions if len(region.view)]
        self.bytes = [np.frombuffer(region.view, np.uint8) for region in regions]
        self.starts = np.array([region.address for region in regions], np.uint64)
        self.sizes = np.array([len(region.view) for region in regions], np.uint64)

    def find(self, address: npt.NDArray[np.uint64], length: npt.NDArray[np.uint64]) -> Runs:
        """Return where pieces of memory lie; one that goes on in the next region is split.

        Raises `GpuError` (invalid parameter) when one is not guest memory.
        """
        if not self.bytes and len(address):
            raise GpuError(Response.ERR_INVALID_PARAMETER, "backing: there is no guest memory")
        while True:
            region = np.searchsorted(self.starts, address, side="right").astype(np.int64) - 1
            first = address - self.starts[region]
            outside = (region < 0) | (first >= self.sizes[region])
            if outside.any():
                at = int(np.flatnonzero(outside)[0])
                raise GpuError(
                    Response.ERR_INVALID_PARAMETER,
                    f"backing: {int(length[at]):#x} bytes at {int(address[at]):#x} are not guest"
                    " memory",
                )
            room = self.sizes[region] - first
            long = np.flatnonzero(room < length)
            if not len(long):
                return Runs(region, first.astype(np.int64), length.astype(np.int64))
            rest = length[long] - room[long]
            behind = address[long] + room[long]
            length[long] = room[long]
            address = np.insert(address, long + 1, behind)
            length = np.insert(length, long + 1, rest)


def read_entries(
    regions: Sequence[GuestRegion], body: memoryview, count: int, size: int, pages: GuestPages
) -> Generator[None, None, Backing]:
    """Read, in steps, the `count` memory entries in `body`, for a resource of `size` bytes.

    `pages` learns of them.
    Raises `GpuError`: invalid parameter when there are fewer, or one is not guest memory; out of
    memory for more than `most_pieces`.
    """
    if len(body) != count * MEM_ENTRY.size:
        raise GpuError(
            Response.ERR_INVALID_PARAMETER, f"{count} memory entries in {len(body)} bytes"
        )
    if count > most_pieces(size):
        raise GpuError(
            Response.ERR_OUT_OF_MEMORY,
            f"{count} pieces of memory for a resource of {size} bytes",
        )
    memory = _Regions(regions)
    entries = np.frombuffer(body, _ENTRY)
    found: list[Runs] = []
    for at in range(0, count, ENTRIES_A_STEP):
        part = entries[at : at + ENTRIES_A_STEP]
        part = part[part["length"] > 0]
        if len(part):
            address, length = part["address"].astype(np.uint64), part["length"].astype(np.uint64)
            if pages.undecided:
                pages.saw(int(np.bitwise_or.reduce(address | length)))
            runs = memory.find(address, length)
            _append(found, _joined(runs))
        yield
    nothing = np.empty(0, np.int64)
    columns = zip(*found, strict=True) if found else [[nothing]] * 3
    return Backing(memory.bytes, Runs(*(np.concatenate(list(column)) for column in columns)))


def _joined(runs: Runs) -> Runs:
    """Make one run of those that follow each other in memory."""
    region, first, length = runs
    fresh = np.ones(len(region), bool)
    fresh[1:] = (region[1:] != region[:-1]) | (first[1:] != first[:-1] + length[:-1])
    at = np.flatnonzero(fresh)
    return Runs(region[at], first[at], np.add.reduceat(length, at))


def _append(found: list[Runs], runs: Runs) -> None:
    """Add `runs`; the first may go on where the last has ended."""
    if found:
        last = found[-1]
        end = last.first[-1] + last.length[-1]
        if (last.region[-1], end) == (runs.region[0], runs.first[0]):
            last.length[-1] += runs.length[0]
            runs = Runs(*(column[1:] for column in runs))
    if len(runs.region):
        found.append(runs)
