"""Run each kind of command through the kernel, between two cuts: a program for callgrind.

    python count_stream.py COUNT

Prints the kinds, a line each, in the order in which they have run.
"""

from __future__ import annotations

import sys

from hesper.bench.client import loops
from hesper.bench.client.decode import COMMAND_KINDS, Kernel

WARM_UP = 100


def main(count: int) -> None:
    """Run everything; ends with an error when the kernel has not run what it was given."""
    kernel = Kernel()
    for name in COMMAND_KINDS:
        kernel.engine.submit(kernel.stream(name, WARM_UP))
        stream = kernel.stream(name, count)
        before = kernel.engine.statistics()["commands"]
        loops.cut()
        kernel.engine.submit(stream)
        loops.cut()
        # One more sets the reply stream.
        if kernel.engine.statistics()["commands"] - before != count + 1:
            raise SystemExit(f"{name}: the kernel has not run {count} commands")
        print(name, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
