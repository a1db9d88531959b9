"""Files and words that users give: host profiles, drivers' manifests, sizes, limits."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import msgspec

from fuzz.source import Source
from hesper.cli._sizes import parse_size
from hesper.errors import OptionError, ProfileError
from hesper.host.manifests import ManifestError, read_manifest
from hesper.host.profile import load_profile
from hesper.limits import Limits

INSTRUMENTED = ("hesper.host", "hesper.limits", "hesper.cli._sizes")
FOLDER = Path(tempfile.gettempdir())


def prepare() -> None:
    """Nothing takes long."""


def run_one(data: bytes) -> None:
    """Read it as one of them.  Raises what is not documented."""
    source = Source(data)
    kind = source.number(1) % 5
    rest = source.take(len(data))
    if kind < 3:
        suffix = (".json", ".toml", ".json")[kind]
        with tempfile.NamedTemporaryFile(suffix=suffix, dir=FOLDER) as file:
            file.write(rest)
            file.flush()
            if kind == 2:
                with contextlib.suppress(ManifestError):
                    read_manifest(Path(file.name))
            else:
                with contextlib.suppress(ProfileError):
                    load_profile(file.name)
    elif kind == 3:
        with contextlib.suppress(ValueError):
            parse_size(rest.decode("utf-8", "replace"))
    else:
        with contextlib.suppress(msgspec.DecodeError, OptionError, UnicodeDecodeError):
            msgspec.json.decode(rest, type=Limits)
