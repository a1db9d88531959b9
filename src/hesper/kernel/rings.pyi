"""A context's rings and their threads."""

from collections.abc import Iterator

from hesper.kernel.views import View

class Ring:
    """One ring and the thread that serves it."""

    @property
    def id(self) -> int: ...
    @property
    def head(self) -> int: ...

class Rings:
    """The rings of one context."""

    def create(
        self, ring_id: int, info: View, *, alive_interval_us: int = 0, nice: int = 0
    ) -> Ring:
        """Make a ring from a checked-by-the-kernel `VkRingCreateInfoMESA` and start its thread.

        nice: the thread's, where that is more than this process' (Linux).
        Raises `ProtocolError` for a bad layout, an id in use, an unknown resource.
        """
    def destroy(self, ring_id: int) -> None:
        """Stop the ring's thread and forget it.

        Raises `ProtocolError` for an unknown id or when called from that ring.
        """
    def __iter__(self) -> Iterator[Ring]: ...
    def __len__(self) -> int: ...
