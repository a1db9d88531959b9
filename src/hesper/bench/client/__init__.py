"""The program that is measured: `python -m hesper.bench.client TASK`, one process a run.

It uses whatever Vulkan driver its environment leads to, and prints one JSON line.  The loops that
are timed are compiled (`loops.pyx`); everything around them is set up through the kernel's tables.
"""
