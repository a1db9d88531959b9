"""What a context has taken of its limits.

Bytes are taken of the memory limit for accounts: `memory` (device memory and blobs), `spare`
(shared memory that is kept), `decoded` (what commands decode to), `rings`, `objects` (with what the
driver is taken to keep for them) and `recorded` (in command buffers).  `devices`, `threads`,
`descriptors` (of shared memory) and `fences` (of timelines, pending) are counted.
"""

class Ledger:
    def begin(self, name: str, count: int = 1) -> bool:
        """Count what is to begin; False, with the limit reached, when there would be too many."""
    def end(self, name: str, count: int = 1) -> None:
        """Count what has ended."""
    def charge(self, object_id: int, size: int) -> bool:
        """Take `size` bytes for as long as an object lives; False when they are not left."""
    def keep(self, size: int) -> bool:
        """Take `size` bytes for as long as the context lives; False when they are not left."""
    def note(self, name: str) -> None:
        """Note that a limit was reached."""
    def untold(self) -> list[tuple[str, int]]:
        """Limits that were reached for the first time since the last call, and what they are."""
    def borrow(self, lease: int, slack: int, wake: int, total: int) -> None:
        """Take no more than `lease` bytes until more is granted, whatever the limit is.

        slack: bytes by which what commands decode to may pass it.  wake: a descriptor, which is
        written to when somebody waits for more.  total: address of two u64, what all clients may
        have together and what of it is left; 0: nobody knows.
        """
    def wanted(self) -> tuple[int, int, int]:
        """How often somebody has begun to wait, bytes that are taken, and those waited for."""
    def grant(self, lease: int, asks: int) -> None:
        """Take no more than `lease` bytes from now on; the first `asks` who waited are answered."""
    def give_back(self, lease: int) -> bool:
        """Take no more than `lease` bytes, if no more are taken or waited for; whether that is."""
    def figures(self) -> dict[str, int]:
        """`limit` and `used`, bytes; those of each account; what is counted."""
