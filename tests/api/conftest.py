"""What the tests of the API share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from traces import Trace


@pytest.fixture
def trace() -> Iterator[Trace]:
    """The process before the test; afterwards it has to be the same."""
    before = Trace()
    yield before
    before.assert_nothing_left()
