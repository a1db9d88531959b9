"""Memory as guests see it: whatever is offered works, on drivers with rules of their own, too.

What is host-visible can be mapped, what is exported can be shared, and each type among an object's
`memoryTypeBits` can be bound to it.  Bytes that the device writes are seen where memory is mapped.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from driver_program import compile_program
from servers import Client, Place, Setup, bare, serving


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uses all memory, and prints what has failed."""
    return compile_program(tmp_path_factory.mktemp("memory"), "use_all_memory")


def use(client: Client, program: Path) -> dict[str, int]:
    """Run it; what it has counted.  Nothing may fail."""
    *failed, counts = client.run([str(program)]).stdout.splitlines()
    assert not failed, "\n".join([*failed, counts])
    found = re.findall(r"(\w+) (\d+)", counts)
    return {name: int(number) for name, number in found}


def test_what_is_offered_works(machine: Place, setup: Setup, program: Path) -> None:
    assert use(bare(machine, setup=setup), program)["tried"] > 0
    with serving(machine, setup) as server:
        found = use(server.client(machine), program)
    assert found["visible"] > 0, "the guest can map something"
    assert found["descriptors"] > 0, "the guest can share something"
