"""Shows a pattern in a window until it is told to stop; prints what viewers do."""

from __future__ import annotations

import os
import sys
import threading

import glfw
from pattern import Pattern

from hesper.display.geometry import Size
from hesper.display.scanout import Display, Scanout
from hesper.display.window.app import run_windows


def main() -> None:
    """Serve one screen; the first line of standard input that is empty ends it."""
    stop = threading.Event()

    def resized(scanout: Scanout) -> None:
        print(f"size {scanout.wanted.width}x{scanout.wanted.height}", flush=True)
        Pattern(scanout.wanted).show_on(scanout)

    display = Display(1, resized=resized)
    display.connect_input(lambda _, events: print(*events, sep="\n", flush=True))
    Pattern(Size(400, 300)).show_on(display[0])

    def wait() -> None:
        sys.stdin.readline()
        stop.set()
        glfw.post_empty_event()

    threading.Thread(target=wait, daemon=True).start()
    run_windows(display, stop)
    print(f"watchers {display[0].watchers}", flush=True)


if __name__ == "__main__":
    os.environ.pop("WAYLAND_DISPLAY", None)
    main()
