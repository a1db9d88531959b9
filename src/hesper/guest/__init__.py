"""One guest context: its resources, memory, queues, fences and the commands that need thought.

A frontend makes a `Context` per guest context and tells the guest what `capset` says.
"""

from hesper.guest.capset import capset
from hesper.guest.context import Context
from hesper.guest.errors import (
    InvalidParameterError,
    InvalidResourceError,
    OutOfMemoryError,
    ResourceError,
)
from hesper.limits import Limits

__all__ = [
    "Context",
    "InvalidParameterError",
    "InvalidResourceError",
    "Limits",
    "OutOfMemoryError",
    "ResourceError",
    "capset",
]
