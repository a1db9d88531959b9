"""What a context is doing: looked at by who watches, at no cost while nobody does."""

STAGE_NAMES: tuple[str, ...]
"""What a stream may be doing, see `Watch.streams`."""
SPAN_BYTES: int
"""Size of what a trace keeps of each thing that took time, see `Watch.trace`."""

class Watch:
    """One context's."""

    def attend(self, nanoseconds: int) -> None:
        """Time the queues for so long from now on.

        Every submission takes a fence along meanwhile, which the timeline's thread waits for.
        """
    def queues(self) -> tuple[int, int]:
        """Submissions so far, and ns for which queues have worked while they were attended to.

        A queue works from when it is given something until its fence is seen to be signalled.
        Queues without a timeline are not timed.
        """
    def streams(self, most: int) -> list[tuple[str, str]]:
        """What the socket's stream does, then each ring's: stage and command, for so many at most.

        Stages: `asleep` (until the guest notifies), `wait` (for the next command, awake), both with
        no command (""); `decode`, `driver`, `reply`, `handler` (Python's).
        """
    def trace(self, address: int, size: int, nanoseconds: int, interval: int) -> bool:
        """Note what happens, for so many ns, in `size` zero-filled bytes at `address`.

        Returns when the time is over, the context ends, or `end_trace` is called; at once, with
        False, where that is going on already.  interval: ns between two looks at the streams.  An
        entry has begin and end (u64, ns of the monotonic clock), kind and track (u32), and a value
        (u64).  Kinds: 1, a stream's command, value: stage << 32 | command number, track 0: the
        socket's, others: rings; 2, work of a queue, value: its submissions so far, track: the
        timeline; 3, a fence that the guest waits for, the same.  What has no room is left out.
        """
    def end_trace(self) -> None:
        """Make `trace` return."""

def command_name(number: int) -> str:
    """The Vulkan command with that number in Mesa's protocol; "" if there is none."""
