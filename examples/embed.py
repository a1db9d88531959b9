"""Serve Vulkan from a program of your own: servers on its threads, and programs that use them.

    python examples/embed.py [--driver NAME] [COMMAND...]

Runs COMMAND (default: vulkaninfo --summary) twice at the same time, each through a server of its
own, while the main thread does something else.  Ends with 1 when one of them has failed.  Needs
Hesper, Mesa's Venus, and the command.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import hesper
from hesper.errors import HesperError


def serve_and_run(folder: Path, number: int, driver: str | None, command: list[str]) -> int:
    """Run `command` through a server at a socket in `folder`; return its exit status."""
    # A client gets what it may use at most: here, a quarter of what Hesper would let it have.
    memory = hesper.Limits().memory // 4
    options = hesper.VtestServer.Options(driver=driver, warm=1, limits=hesper.Limits(memory=memory))
    with hesper.VtestServer(folder / f"socket-{number}", options) as server:
        environ = os.environ | server.client_environment()
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        print(f"--- {number}: through {server}, with {server.about.device}\n{done.stdout}", end="")
        sys.stderr.write(done.stderr)
        return done.returncode


def main() -> None:
    """Do it on two threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--driver", help="the host's driver (default: the best one)")
    parser.add_argument("command", nargs="*", default=["vulkaninfo", "--summary"])
    wanted = parser.parse_args()

    # Hesper's events come by the loggers that the program has; this one shows them all.
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    found = hesper.drivers(wanted.driver)
    print(f"driver: {found.chosen.name if found.chosen else 'none'}", flush=True)

    results: list[int | HesperError] = []

    def work(number: int) -> None:
        try:
            results.append(serve_and_run(Path(folder), number, wanted.driver, wanted.command))
        except HesperError as error:  # its text says what to do
            results.append(error)

    with tempfile.TemporaryDirectory(prefix="embed-") as folder:
        threads = [threading.Thread(target=work, args=[number]) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for result in results:
        if isinstance(result, HesperError):
            print(f"error: {result}", file=sys.stderr)
    sys.exit(any(results))


if __name__ == "__main__":
    try:
        main()
    except HesperError as failure:
        sys.exit(f"error: {failure}")
