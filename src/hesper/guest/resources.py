"""Blob resources: shared memory that the guest names by a 32-bit id."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hesper.guest.errors import InvalidResourceError, OutOfMemoryError

if TYPE_CHECKING:
    from hesper.guest.regions import Region
    from hesper.kernel.engine import Engine


@dataclass(frozen=True)
class Resource:
    """One resource.  It owns `region`."""

    id: int
    region: Region
    size: int
    """Bytes the guest has asked for."""
    is_stream: bool
    """Whether rings, replies and command streams may lie in it (known to the engine)."""


class Resources:
    """A context's resources.  Any thread may use it."""

    def __init__(self, engine: Engine, limit: int) -> None:
        """Start with none; there can be `limit`."""
        self._engine = engine
        self._limit = limit
        self._lock = threading.Lock()
        self._resources: dict[int, Resource] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._resources)

    def check_new(self, resource_id: int) -> None:
        """Check that an id can be taken.

        Raises `InvalidResourceError`, or `OutOfMemoryError` at the limit.
        """
        if not 0 < resource_id < 1 << 32:
            raise InvalidResourceError(f"resource id {resource_id} is out of range")
        if resource_id in self._resources:
            raise InvalidResourceError(f"resource {resource_id} exists already")
        if len(self._resources) >= self._limit:
            raise OutOfMemoryError(f"more than {self._limit} resources")

    def add(self, resource_id: int, region: Region, size: int, *, is_stream: bool) -> None:
        """Make a resource that takes over one ownership of `region`.

        Raises what `check_new` raises; the ownership is released then.
        """
        try:
            with self._lock:
                self.check_new(resource_id)
                if is_stream:
                    self._engine.add_resource(resource_id, region.address, size)
                self._resources[resource_id] = Resource(resource_id, region, size, is_stream)
        except BaseException:
            region.release()
            raise

    def get(self, resource_id: int) -> Resource:
        """Return the resource.  Raises `InvalidResourceError`."""
        try:
            return self._resources[resource_id]
        except KeyError:
            raise InvalidResourceError(f"no resource {resource_id}") from None

    def share(self, resource_id: int) -> Region:
        """Return the resource's region with one owner more.  Raises `InvalidResourceError`."""
        with self._lock:
            return self.get(resource_id).region.share()

    def destroy(self, resource_id: int) -> None:
        """Forget a resource.  Raises `InvalidResourceError`."""
        with self._lock:
            resource = self.get(resource_id)
            del self._resources[resource_id]
        self._free(resource)

    def close(self) -> None:
        """Forget all of them."""
        while True:
            with self._lock:
                if not self._resources:
                    return
                _, resource = self._resources.popitem()
            self._free(resource)

    def _free(self, resource: Resource) -> None:
        if resource.is_stream:
            self._engine.remove_resource(resource.id)
        resource.region.release()
