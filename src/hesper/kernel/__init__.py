"""The compiled kernel: ring, decode, encode, objects, calls.

Its modules are one shared object, `engine`, so that there is one copy of the wire tables.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_COMPILED = frozenset(
    {
        "crashes", "devices", "handlers", "ledger", "messages", "objects", "port", "resources",
        "rings", "runtime", "shares", "shm", "tape", "timelines", "views", "vulkan", "watch",
    }
)  # fmt: skip


class _Finder:
    """Finds those modules in the shared object, which has an initialiser for each."""

    @staticmethod
    def find_spec(
        fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name not in _COMPILED:
            return None
        for suffix in EXTENSION_SUFFIXES:
            path = Path(__file__).with_name("engine" + suffix)
            if path.exists():
                loader = ExtensionFileLoader(fullname, str(path))
                return spec_from_file_location(fullname, path, loader=loader)
        return None


sys.meta_path.append(_Finder)
