"""Blob resources: shared memory that the guest names by a 32-bit id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import InvalidResourceError, OutOfMemoryError

if TYPE_CHECKING:
    from hesper.kernel.engine import Engine
    from hesper.kernel.shm import Region


class Resources:
    """A context's resources, which the kernel keeps.  Any thread may use it."""

    def __init__(self, engine: Engine) -> None:
        """Use those of `engine`."""
        self._engine = engine

    def __len__(self) -> int:
        """How many there are."""
        return len(self._engine.resources)

    def check_new(self, resource_id: int) -> None:
        """Check that an id can be taken.

        Raises `InvalidResourceError`, or `OutOfMemoryError` at the limit.
        """
        if not 0 < resource_id < 1 << 32:
            raise InvalidResourceError(f"resource id {resource_id} is out of range")
        if resource_id in self._engine.resources:
            raise InvalidResourceError(f"resource {resource_id} exists already")
        if len(self._engine.resources) >= self._engine.resources.limit:
            raise OutOfMemoryError(f"more than {self._engine.resources.limit} resources")

    def add(self, resource_id: int, region: Region, size: int, *, is_stream: bool) -> None:
        """Make a resource that takes over one ownership of `region`.

        is_stream: whether rings, replies and command streams may lie in it.
        Raises what `check_new` raises; the ownership is released then.
        """
        try:
            self.check_new(resource_id)
        except BaseException:
            region.release()
            raise
        try:
            self._engine.resources.add_region(resource_id, region, size, is_stream=is_stream)
        except ValueError as error:
            raise InvalidResourceError(str(error)) from error

    def share(self, resource_id: int) -> Region:
        """Return the resource's region with one owner more.  Raises `InvalidResourceError`."""
        try:
            return self._engine.resources.share(resource_id)
        except (KeyError, OverflowError):
            raise InvalidResourceError(f"no resource {resource_id}") from None

    def destroy(self, resource_id: int) -> None:
        """Forget a resource.  Raises `InvalidResourceError`."""
        try:
            self._engine.resources.remove(resource_id)
        except (KeyError, OverflowError):
            raise InvalidResourceError(f"no resource {resource_id}") from None

    def close(self) -> None:
        """Forget all of them."""
        for resource_id in self._engine.resources.ids():
            self._engine.resources.remove(resource_id)
