"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no mistake: no test asserts a time.
settings.register_profile("hesper", deadline=None)
settings.load_profile("hesper")
