"""A context's resources: shared memory that a guest names by a 32-bit id."""

from hesper.kernel.shm import Region

class ResourceTable:
    """The resources of one context."""

    def add(self, resource_id: int, address: int, size: int) -> None:
        """Make `size` bytes mapped at `address` known for streams, replies and rings.

        Raises `ValueError` for an id in use, or beyond the limit.  The memory must stay mapped
        until `remove` has returned.
        """
    def add_region(self, resource_id: int, region: Region, size: int, *, is_stream: bool) -> None:
        """Make a resource of `size` bytes that takes over the ownership of `region`.

        is_stream: whether streams, replies and rings may lie in it.
        Raises `ValueError` for an id in use, or beyond the limit; the ownership is released then.
        """
    def __contains__(self, resource_id: int, /) -> bool:
        """Whether the id is in use."""
    def share(self, resource_id: int) -> Region:
        """The region of a resource, with one owner more.  Raises `KeyError` without one."""
    def __len__(self) -> int: ...
    @property
    def limit(self) -> int:
        """How many there may be."""
    def ids(self) -> list[int]:
        """The ids in use."""
    def remove(self, resource_id: int) -> None:
        """Forget it; waits until no stream is reading it.

        A ring or a reply stream that still lies in it poisons the context.  Raises `KeyError` for
        an unknown id.
        """
    def unreferenced(self) -> int:
        """Bytes of the memory limit that resources hold whose VkDeviceMemory is gone."""
