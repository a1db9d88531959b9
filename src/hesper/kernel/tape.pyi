"""What a context is told, for who writes it to a file.

Records (docs/recordings.md) are put by the context's threads and taken by another: one that falls
behind by `ROOM` bytes holds the context up.
"""

ROOM: int
"""Bytes of records that may wait to be taken."""

class Tape:
    """Goes into one `Engine`.

    `take`, `written` and `die_with` are for one thread; others for any.
    """

    def take(self, patience_ns: int) -> bytes | None:
        """What has been noted, when it is enough or after so long; None: it is closed, and empty.

        After each that is not empty, `written` must be called.
        """
    def written(self, number: int, fd: int) -> None:
        """Take note that what was taken is in the file `fd`, whose next chunk has that number."""
    def die_with(self, fd: int) -> None:
        """Write what is there to the file `fd`, as a chunk, when a fatal signal ends the process.

        For one tape of a process.
        """
    def imported(self, resource_id: int, size: int) -> None:
        """Note that memory of others has become a resource of `size` bytes."""
    def end(self, reason: str) -> None:
        """Note how the context ends; nothing is wrong where the reason is empty."""
    def want_whole(self) -> None:
        """Note all memory, not only what has changed, before the next submission.

        A record WHOLE comes first: with what is noted from there on, memory is known.
        """
    def last(self) -> None:
        """Note what memory that the guest can write to holds in the end."""
    def stop(self) -> None:
        """Note nothing any more: the file is as large, or as old, as it may be."""
    def close(self) -> None:
        """Note nothing any more, and let `take` come to its end."""
    @property
    def is_over(self) -> bool:
        """Whether `stop` was called."""
    @property
    def now(self) -> int:
        """Nanoseconds since the tape was made."""
