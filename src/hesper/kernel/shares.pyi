"""A context's part in sharing the GPU's time with others: `isolation.shares` decides."""

class Shares:
    """Life: made with the engine; `join`ed at most once, then `leave`."""

    def join(self, page: int, wake: int) -> None:
        """Share the GPU's time: a thread measures what the context uses.

        page: address of what is shared with the supervisor (`isolation.shares`), mapped for good.
        wake: a descriptor to write to when the supervisor wants to be woken.
        """
    def forget(self, device: int) -> None:
        """Measure nothing of a device any more; before it is destroyed.  Raises `KeyError`."""
    def leave(self) -> None:
        """Measure nothing any more, and hold nobody.  May be called again."""
