"""C memory as Python sees it: structs by field name, arrays by index."""

from collections.abc import Iterator
from typing import Any

class Scratch:
    """Owns memory for C structs that Python fills and passes to `ProcTable.call`.

    Views stay valid as long as the Scratch they come from.
    """

    def new(self, struct: str, /, **fields: Any) -> View:
        """A zeroed struct with its sType set and `fields` assigned."""
    def array(self, struct: str, count: int) -> Array:
        """`count` zeroed structs, sTypes set; or scalars for a C type such as `uint32_t`."""

class View:
    """A C struct (or a command's parameters) in memory, described by the wire tables.

    Fields are attributes named as in the registry.  Reading gives: an int or float for scalars,
    enums, flags and handles (host handles); `str` for strings and fixed `char` arrays (reads as
    str); `bytes` for fixed `uint8_t` arrays and blobs; `View` for nested structs and pointers to
    structs; `Array` for pointers to arrays and fixed arrays; `None` for null pointers.
    Writing converts the same types back: an int (an address where the field is a pointer), `str`,
    `bytes`, `View`, `Array`, or a sequence (of ints, floats, strs), which is copied into the memory
    the View belongs to and, where the registry names a length field, sets that too.
    """

    @property
    def struct_(self) -> str:
        """The struct's or command's name in the registry."""
    @property
    def address_(self) -> int:
        """Where it lies."""
    def fields_(self) -> list[str]:
        """Names of its fields, in order."""
    def pointer_(self, name: str) -> int:
        """The address that a pointer field holds; 0 for a null pointer."""
    def copy_(self, source: View) -> None:
        """Copy every byte of `source`, a view of the same struct, here (pNext kept)."""
    def chain_(self) -> Iterator[View]:
        """The structs of its pNext chain, in order (itself not included)."""
    def find_(self, struct: str) -> View | None:
        """The struct of that name in the pNext chain."""
    def remove_(self, struct: str) -> View | None:
        """Unlink the struct of that name from the pNext chain and return it."""
    def push_(self, struct: str, /, **fields: Any) -> View:
        """Put a new struct at the front of the pNext chain."""
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any, /) -> None: ...

class Array:
    """A C array in memory: `len`, indexing, iteration.  Elements as `View` gives fields."""

    @property
    def address_(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...
    def __setitem__(self, index: int, value: Any, /) -> None: ...
    def __iter__(self) -> Iterator[Any]: ...
