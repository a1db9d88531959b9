"""Timelines: the fences of queues."""

from collections.abc import Callable

class Timeline:
    """A queue's fences, and the thread that waits for them."""

    @property
    def ring_idx(self) -> int: ...
    def stop(self, timeout: float) -> bool:
        """Unbind it, retire what is pending, and end the thread; call it once.

        After `timeout` seconds, fences that are still pending are retired all the same.  Returns
        whether the queue was through by then; if not, the driver still has the fences.
        """

class Timelines:
    """The timelines of one context."""

    def bind(self, ring_idx: int, queue: int, on_refused: Callable[[int], None]) -> Timeline:
        """Bind timeline `ring_idx` (1 to 63) to the queue with guest id `queue`.

        on_refused: called once, from a thread, with the VkResult for which the queue takes no
        fence; from then on it counts as through with whatever it was given.
        Raises `KeyError` for an unknown queue, `ProtocolError` for a timeline that is out of range
        or bound.
        """
    def set_lookout(self, nanoseconds: int) -> None:
        """Set how long a queue may work before its timeline asks the driver whether it lives.

        Without that a guest that asks for no fence would not hear that its device is lost.  A
        quarter of a second at first.
        """
