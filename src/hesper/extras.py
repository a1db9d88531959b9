"""Parts of Hesper that a plain `pip install hesper` lacks packages for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hesper.errors import MissingExtraError


@contextlib.contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """Import inside of this what `extra` brings, for `what`.

    Raises `MissingExtraError` where it is not installed.  The outermost says for what it is needed.
    """
    try:
        yield
    except (MissingExtraError, ModuleNotFoundError) as error:
        # One of our own is missing by mistake.
        if error.name is None or error.name.partition(".")[0] == "hesper":
            raise
        raise MissingExtraError(what, error.name.partition(".")[0], extra) from error
