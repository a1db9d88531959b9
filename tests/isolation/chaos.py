"""Chaos: many clients at once, most of them hostile, on one server whose workers are killed.

`scripts/chaos --minutes 10` runs it for long, `test_chaos.py` for half a minute.  Honest clients
have buffers filled and look at them.  In the end nothing may be left: no process, descriptor,
shared memory or file, and the server takes as much memory as before.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fake_drivers import FakeDriver, make_driver
from guest_client import CODEC
from supervised import HESPER, Supervised
from vtest_client import Client
from wire_guest import WireGuest

from hesper.portable import process_usage

WARM = 2
HONEST_PATIENCE = 120.0
"""Seconds in which an honest client must have been served, however busy it is."""
FELT = 3.0
"""Seconds after a kill, or scarce descriptors, in which they may let down an honest client."""
PLACES = 64
GROWTH = 32 << 20
"""Bytes by which a server may have grown: what it keeps for the next clients."""
FAULTY = "vkCreateQueryPool"
"""The command that drivers fail in.  Honest clients do not use it."""
ACTIONS = ("segv", "abort", "VK_ERROR_OUT_OF_DEVICE_MEMORY", "lost", "hang")
SCARCE = (10, 60)
"""Descriptors that a server may have while they are scarce, at least, and below."""
PR_SET_CHILD_SUBREAPER = 36


class Chaos:
    """One run.  Life: made, `run`."""

    def __init__(self, folder: Path, *, clients: int, seconds: float, seed: int) -> None:
        """Make a driver and a server in `folder`."""
        self.folder = folder
        self.clients = clients
        self.seconds = seconds
        self.rng = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.longest = 0.0
        """Seconds that an honest client has waited at most."""
        self._harmed = -FELT
        """When a worker was killed, or descriptors were scarce."""
        self.served: collections.Counter[str] = collections.Counter()
        """Sessions that each honest client has had."""
        self.over = threading.Event()
        self.driver: FakeDriver = make_driver(folder / "driver", "plain")
        self.path = folder / "socket"
        arguments = ["--socket", str(self.path), "--driver", str(self.driver.manifest), "--json"]
        arguments += ["--max-clients", str(PLACES), "--warm", str(WARM)]
        # Nobody else who asks root's servers is to meddle.
        arguments += ["--handshake-timeout", "3", "--no-status"]
        self.server = Supervised(self.path, [*HESPER, "serve", *arguments])
        self._roles: tuple[Callable[[random.Random], None], ...] = (
            self._silent, self._slow, self._half, self._garbage, self._rewriter,
            self._faulty, self._victim, self._victim,
        )  # fmt: skip

    def run(self) -> list[str]:
        """Let it happen; return what was wrong."""
        self.server.ready()
        self._wait_idle()
        self._honest_session(random.Random(0), "honest-first")
        self._wait_idle()
        before = self._state()
        honest = max(2, self.clients // 5)
        threads = [
            threading.Thread(target=self._client, args=[number, number < honest])
            for number in range(self.clients)
        ]
        threads += [
            threading.Thread(target=each) for each in (self._kill, self._starve, self._fail)
        ]
        for thread in threads:
            thread.start()
        self.over.wait(self.seconds)
        self.over.set()
        for thread in threads:
            thread.join(2 * HONEST_PATIENCE)
            if thread.is_alive():
                self.failures.append("a client does not end")
        for number in range(honest):
            if not self.served[f"honest-{number}"]:
                self.failures.append(f"honest client {number} was never served")
        if self.counts["let down"] > self.counts["honest"] // 4:
            self.failures.append("more than one of five honest clients was let down")
        self._check_rest(before)
        return self.failures

    # Before and after.

    def _state(self) -> tuple[int, int, int]:
        pid = self.server.process.pid
        threads = len(os.listdir(f"/proc/{pid}/task"))
        return self.server.descriptors(), threads, process_usage(pid).resident

    def _wait_idle(self) -> None:
        self._until(lambda: len(self.server.children()) == WARM, "the workers to be gone")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + HONEST_PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                self.failures.append(f"waited in vain for {what}")
                return
            time.sleep(0.05)

    def _check_rest(self, before: tuple[int, int, int]) -> None:
        """See that the server is as it was, that it ends, and that nothing is left of it."""
        self._wait_idle()
        # A server without descriptors may have given up the process that workers are forked from:
        # from then on it has a thread and a descriptor for each.
        most = before[0] + WARM, before[1] + WARM
        self._until(lambda: self.server.descriptors() <= most[0], "the descriptors to be closed")
        self._until(lambda: self._state()[1] <= most[1], "the threads to be gone")
        after = self._state()
        print(f"descriptors {before[0]} -> {after[0]}, threads {before[1]} -> {after[1]},", end=" ")
        print(f"resident {before[2] >> 20} -> {after[2] >> 20} MiB, honest clients", end=" ")
        print(f"waited {self.longest:.1f} s at most")
        if after[2] > before[2] + GROWTH:
            self.failures.append(f"the server has grown from {before[2]} to {after[2]} bytes")
        self._honest_session(random.Random(0), "honest-last")
        if status := self.server.stop():
            self.failures.append(f"the server ends with {status}: {self.server.plain[-5:]}")
        # What the server has left to nobody is ours now.
        self._until(self._has_no_children, "all processes to be gone")
        if self.path.exists():
            self.failures.append("the socket is still there")
        if self.server.plain:
            self.failures.append(f"lines that are no log: {self.server.plain[:5]}")

    @staticmethod
    def _has_no_children() -> bool:
        """Whether nobody is left, of those who have ended, either: a namespace waits for them."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return False
        return True

    # Clients.

    def _client(self, number: int, is_honest: bool) -> None:
        rng = random.Random(self.rng.getrandbits(32))
        while not self.over.is_set():
            try:
                if is_honest:
                    self._honest_session(rng, f"honest-{number}")
                else:
                    role = rng.choice(self._roles)
                    self.counts[role.__name__.lstrip("_")] += 1
                    with contextlib.suppress(OSError, EOFError, AssertionError, ValueError):
                        role(rng)
            except BaseException as error:
                # Killing is blind, and a worker keeps the few descriptors that it was made with.
                if is_honest and time.monotonic() < self._harmed + FELT:
                    self.counts["let down"] += 1
                    continue
                self.failures.append(f"client {number}: {error!r}")
                return

    def _honest_session(self, rng: random.Random, name: str) -> None:
        """Be served: a client that is not let in tries again, one that is may not be let down."""
        start = time.monotonic()
        while True:
            try:
                guest = WireGuest(self.path, name, patience=30)
                break
            except (OSError, EOFError, ValueError):
                # No place, or a worker that was made while descriptors were scarce.
                self.counts["not let in"] += 1
                if time.monotonic() > start + HONEST_PATIENCE:
                    raise
                time.sleep(rng.random() / 4)
        try:
            guest.client.sock.settimeout(HONEST_PATIENCE)
            guest.start()
            for _ in range(rng.randint(1, 4)):
                pattern = rng.getrandbits(32)
                assert guest.fill(pattern), f"{name}: the buffer is not filled with {pattern:#x}"
                self.counts["fills"] += 1
        finally:
            guest.close()
        self.counts["honest"] += 1
        self.served[name] += 1
        self.longest = max(self.longest, time.monotonic() - start)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Client]:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with sock:
            sock.settimeout(10)
            sock.connect(str(self.path))
            client = Client(sock)
            sock.settimeout(10)
            yield client

    def _silent(self, rng: random.Random) -> None:
        """Say nothing."""
        with self._connected():
            self.over.wait(rng.random() * 4)

    def _slow(self, rng: random.Random) -> None:
        """Shake hands a byte at a time."""
        said = struct.pack("<II", 5, 8) + b"chaos" + struct.pack("<III", 1, 11, 3)
        with self._connected() as client:
            for byte in said:
                client.sock.sendall(bytes([byte]))
                if self.over.wait(rng.random() / 20):
                    return

    def _half(self, rng: random.Random) -> None:
        """Leave in the middle of a message."""
        with self._connected() as client:
            client.handshake(b"chaos-half\0")
            message = struct.pack("<IIIIQQ", 6, 18, 2, 1, 4096, 0)
            client.sock.sendall(message[: rng.randrange(1, len(message))])
            if rng.random() < 0.5:
                client.sock.shutdown(socket.SHUT_WR)
                client.gone()

    def _garbage(self, rng: random.Random) -> None:
        """Send what comes."""
        with self._connected() as client:
            if rng.random() < 0.5:
                client.handshake(b"chaos-garbage\0")
            client.sock.sendall(rng.randbytes(rng.randrange(1, 4096)))
            client.gone()

    def _guest(self, name: str) -> WireGuest:
        return WireGuest(self.path, name, patience=10)

    def _rewriter(self, rng: random.Random) -> None:
        """Write all over a ring that is being read."""
        with contextlib.closing(self._guest("chaos-rewriter")) as guest:
            guest.start()
            _, fd = guest.client.create_blob(1 << 16)
            with os.fdopen(fd, "r+b", buffering=0) as memory:
                info = {
                    "resourceId": 2, "offset": 0, "size": 1 << 16, "idleTimeout": 1000,
                    "headOffset": 0, "tailOffset": 64, "statusOffset": 128, "bufferOffset": 4096,
                    "bufferSize": 1 << 14, "extraOffset": 4096 + (1 << 14), "extraSize": 4,
                }  # fmt: skip
                guest.send("vkCreateRingMESA", ring=9, pCreateInfo=info)
                commands = CODEC.encode("vkDeviceWaitIdle", {"device": 3}) * 64
                for _ in range(rng.randrange(20, 200)):
                    os.pwrite(memory.fileno(), commands, 4096)
                    os.pwrite(memory.fileno(), struct.pack("<I", rng.getrandbits(14) & ~3), 64)
                    at = rng.choice((0, 64, 128, 4096 + rng.randrange(0, 4096, 4)))
                    if rng.random() < 0.1:
                        os.pwrite(memory.fileno(), rng.randbytes(4), at)
                    guest.send("vkNotifyRingMESA", ring=9)

    def _faulty(self, rng: random.Random) -> None:
        """Use what the driver fails in."""
        with contextlib.closing(self._guest("chaos-faulty")) as guest:
            guest.start()
            guest.client.sock.settimeout(2)
            for _ in range(rng.randint(1, 4)):
                guest.create("QueryPool", {"queryType": 0, "queryCount": 4})

    def _victim(self, rng: random.Random) -> None:
        """Work, until somebody kills the worker or nobody does."""
        with contextlib.closing(self._guest("chaos-victim")) as guest:
            guest.start()
            for _ in range(rng.randint(1, 20)):
                guest.fill(rng.getrandbits(32))

    # What else goes wrong.

    def _kill(self) -> None:
        """Kill workers, whomever they serve."""
        rng = random.Random(self.rng.getrandbits(32))
        while not self.over.wait(2 + 3 * rng.random()):
            self._harmed = time.monotonic()
            if workers := self.server.children():
                number = rng.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), number)
                self.counts["killed"] += 1

    def _starve(self) -> None:
        """Take descriptors away from the server for a while, now and then."""
        pid = self.server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        rng = random.Random(self.rng.getrandbits(32))
        while not self.over.wait(1 + rng.random() * 4):
            left = rng.randrange(*SCARCE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (left, before[1]))
            self.counts["starved"] += 1
            self.over.wait(rng.random())
            self._harmed = time.monotonic()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    def _fail(self) -> None:
        """Let the driver fail in other ways."""
        rng = random.Random(self.rng.getrandbits(32))
        while not self.over.wait(rng.random() * 2):
            self.driver.fault(f"{FAULTY} {rng.randint(1, 3)}+ {rng.choice(ACTIONS)}")
            self.counts["faults"] += 1


def chaos(*, clients: int, seconds: float, seed: int) -> list[str]:
    """Run it in a folder of its own, which is empty of all but our own in the end."""
    # Whoever is left over becomes a child of this process, and is found.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="hesper-chaos-") as name:
        folder = Path(name)
        temporary = folder / "tmp"
        temporary.mkdir()
        shared = set(os.listdir("/dev/shm"))
        os.environ["TMPDIR"] = str(temporary)
        one = Chaos(folder, clients=clients, seconds=seconds, seed=seed)
        try:
            failures = one.run()
        finally:
            one.over.set()
            one.server.process.kill()
            print(f"server: {one.server.end()}", *one.server.plain, sep="\n    ")
        failures += [f"left in the temporary folder: {each}" for each in temporary.iterdir()]
        left = {each for each in set(os.listdir("/dev/shm")) - shared if "hesper" in each}
        failures += [f"left in shared memory: {each}" for each in sorted(left)]
    print(", ".join(f"{key} {count}" for key, count in sorted(one.counts.items())))
    events: collections.Counter[Any] = collections.Counter(e["event"] for e in one.server.log)
    print("log: " + ", ".join(f"{event} {count}" for event, count in events.most_common()))
    mistakes = collections.Counter(
        e.get("exception", "").strip() for e in one.server.log if e["event"] == "internal error"
    )
    failures += [f"{count} x internal error:\n{text}" for text, count in mistakes.items()]
    return failures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Chaos: see what is left of it.")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--clients", type=int, default=50, help="at once (default: 50)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    wanted = parser.parse_args()
    print(
        f"{wanted.clients} clients for {wanted.minutes:g} minutes, seed {wanted.seed}", flush=True
    )
    failures = chaos(clients=wanted.clients, seconds=60 * wanted.minutes, seed=wanted.seed)
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
