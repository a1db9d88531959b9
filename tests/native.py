"""Tests of what only Linux has, which is not used with `HESPER_PORTABLE=1`."""

from __future__ import annotations

import pytest

from hesper.portable import is_portable

native = pytest.mark.skipif(is_portable(), reason="HESPER_PORTABLE=1 does without")
WAYS = (pytest.param("fork", marks=native), "spawn")
"""How workers come to be: forked from a template, or started anew."""
