"""What a vtest client says first, which is enough to give it a worker."""

from __future__ import annotations

from hesper.isolation.service import ClientError
from hesper.vtest import wire
from hesper.vtest.wire import Command


def introduced(data: bytes) -> bool:
    """Whether `data` begins with a whole `CREATE_RENDERER`; an `isolation.service.Introduced`."""
    if len(data) < wire.HEADER.size:
        return False
    length, number = wire.HEADER.unpack_from(data)
    if number != Command.CREATE_RENDERER:
        raise ClientError(f"command {number} before CREATE_RENDERER")
    request = wire.REQUESTS[Command.CREATE_RENDERER]
    if not request.shortest <= length <= request.longest:
        raise ClientError(
            f"CREATE_RENDERER: {length} bytes of data, must be {request.shortest} to"
            f" {request.longest}"
        )
    return len(data) >= wire.HEADER.size + int(length)
