"""What a ring's thread does with macOS's libraries where there are any: a stub stands for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.conftest import compile_library

PROGRAM = """
import ctypes, sys
from pathlib import Path
from hesper.protocol.codec import Codec
from kernel.conftest import COMMAND_BUFFER, Host, wait_for
from kernel.ring_guest import IDLE, STATUS, Guest

apple = ctypes.CDLL(None)
host = Host(Path(sys.argv[1]))
guest = Guest(host)
draw = Codec().encode("vkCmdDraw", {"commandBuffer": COMMAND_BUFFER, "vertexCount": 3})
# Nothing to do: what was released goes, and there is a new pool.
wait_for(lambda: guest.word(STATUS) & IDLE, "the ring to rest")
wait_for(lambda: apple.pools_pushed() == 2, "the pool to be drained")
assert apple.pools_popped() == 1
assert apple.threads_of_class(0x21) == 1
guest.send(draw)
guest.wait()
wait_for(lambda: guest.word(STATUS) & IDLE, "the ring to rest again")
wait_for(lambda: apple.pools_popped() == 2, "the second pool to be drained")
host.engine.stop()
assert apple.pools_popped() == apple.pools_pushed() == 3

# A ring that never rests lets go, too, now and then.
host = Host(Path(sys.argv[1]))
guest = Guest(host, idleTimeout=10**13)
for _ in range(2000):
    guest.send(draw)
    guest.wait()
    if apple.pools_popped() > 3:
        break
else:
    raise SystemExit("nothing was let go")
host.engine.stop()
assert apple.pools_popped() == apple.pools_pushed()
assert apple.threads_of_class(0x21) == 2
print("well")
"""
"""0x21 is QOS_CLASS_USER_INTERACTIVE."""


@pytest.fixture
def apple(tmp_path: Path) -> Path:
    return compile_library("apple_threads", tmp_path)


def test_a_rings_thread_has_a_class_and_a_pool(apple: Path, fake_driver: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(fake_driver)],
        env={
            **os.environ,
            # A sanitizer's library, which may be there, comes first.
            "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {apple}".strip(),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
