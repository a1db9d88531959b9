"""Run cases of the Vulkan conformance tests on the bare driver and through Hesper, and compare.

    python tests/clients/conformance.py DEQP CASES [--root ROOT] [--out FOLDER]

Started by `scripts/record-conformance`.  DEQP is a `deqp-vk` and CASES a list of its cases, one a
line, both as the clients see them in ROOT.  A process is given few cases, so that one that ends its
process costs the others nothing; a case that is alone at fault is tried once more, by itself.
Ends with 1 when Hesper fails what the bare driver does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HESPER = (sys.executable, "-c", "from hesper.cli import main; main()", "serve")
GOOD = {"Pass", "NotSupported", "QualityWarning", "CompatibilityWarning", "Waiver"}
"""Results that are no failure."""
KERNEL_FAULT = re.compile(r"NVRM: Xid.*|amdgpu.*ring .* timeout.*|i915.*GPU HANG.*")
START_SECONDS = 60.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    status: str
    """dEQP's StatusCode, or Crash, Timeout, or Missing: the process never came to it."""
    text: str = ""


@dataclass(frozen=True)
class Side:
    """One way to the driver."""

    name: str
    environ: Mapping[str, str]


@dataclass
class Runner:
    """Gives batches of cases to processes of deqp-vk, several at a time."""

    options: argparse.Namespace
    side: Side
    folder: Path
    """Where lists and logs lie, below the clients' root."""
    results: dict[str, Result] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What the kernel's log had to say, with one of the cases that had run by then."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: int = field(default_factory=lambda: len(kernel_faults()))
    """Lines of the kernel's log that are not new."""

    def run(self, cases: Sequence[str], *, jobs: int, batch: int) -> None:
        """Run all cases; results are kept in `results`."""
        waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        for start in range(0, len(cases), batch):
            waiting.put(list(cases[start : start + batch]))
        threads = [threading.Thread(target=self._work, args=(n, waiting)) for n in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, number: int, waiting: queue.SimpleQueue[list[str]]) -> None:
        while not (self.faults and self.options.stop_on_fault):
            try:
                cases = waiting.get_nowait()
            except queue.Empty:
                return
            last = cases[-1]
            while cases:
                found = self._process(f"{self.side.name}-{number}", cases)
                self.results |= found
                cases = [case for case in cases if case not in found]
            self._look(last)
            if self.options.verbose:
                print(f"{self.side.name}: {len(self.results)}", file=sys.stderr, flush=True)

    def _look(self, last: str) -> None:
        """Look whether the GPU has faulted since."""
        with self.lock:
            lines = kernel_faults()[self.known :]
            self.known += len(lines)
            self.faults += [f"{line}  ({self.side.name}, by {last})" for line in lines]

    def _process(self, name: str, cases: list[str]) -> dict[str, Result]:
        """Run some cases in one process: what became of them, of the first at least."""
        options = self.options
        names, log = self.folder / f"{name}.txt", self.folder / f"{name}.qpa"
        names.write_text("\n".join(cases) + "\n")
        log.unlink(missing_ok=True)
        deqp = Path(options.deqp)
        inside = [
            *("env", "-C", str(deqp.parent), "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"),
            *(f"{key}={value}" for key, value in self.side.environ.items()),
            str(deqp),
            f"--deqp-caselist-file={self._seen(names)}",
            f"--deqp-log-filename={self._seen(log)}",
            *("--deqp-log-images=disable", "--deqp-log-shader-sources=disable"),
            *("--deqp-shadercache=disable", f"--deqp-vk-device-id={options.device}"),
        ]
        root = Path(options.root)
        command = inside if root == Path("/") else ["chroot", str(root), *inside]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        timed_out = not self._wait(process, log)
        text = log.read_text(errors="replace") if log.exists() else ""
        found, begun = parse(text)
        found = {case: result for case, result in found.items() if case in set(cases)}
        if begun is None and len(found) < len(cases) and not found:
            begun = cases[0]
        if begun is not None:
            status = "Timeout" if timed_out else "Crash"
            found[begun] = Result(status, f"exit status {process.returncode}")
        elif len(found) < len(cases) and process.returncode == 0:
            left = (case for case in cases if case not in found)
            found |= {case: Result("Missing") for case in left}
        return found

    def _wait(self, process: subprocess.Popen[bytes], log: Path) -> bool:
        """Wait for a process; one whose log does not grow for too long is killed: False."""
        size, since = -1, time.monotonic()
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            now = log.stat().st_size if log.exists() else 0
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > self.options.patience:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return False
        return True

    def _seen(self, path: Path) -> str:
        return "/" + str(path.relative_to(self.options.root))


def parse(log: str) -> tuple[dict[str, Result], str | None]:
    """Results in a .qpa log, and the case that was begun and not ended, if there is one."""
    found: dict[str, Result] = {}
    begun = None
    status = Result("Missing")
    for line in log.splitlines():
        if line.startswith("#beginTestCaseResult "):
            begun, status = line.split(" ", 1)[1], Result("Missing")
        elif line.startswith("#terminateTestCaseResult ") and begun is not None:
            found[begun], begun = Result(line.split(" ", 1)[1]), None
        elif match := re.search(r'<Result StatusCode="(\w+)">([^<]*)', line):
            status = Result(match[1], match[2])
        elif line.startswith("#endTestCaseResult") and begun is not None:
            found[begun], begun = status, None
    return found, begun


def kernel_faults() -> list[str]:
    """Lines of the kernel's log about a GPU that has faulted; none where it may not be read."""
    done = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace", check=False)
    return KERNEL_FAULT.findall(done.stdout)


@contextlib.contextmanager
def serving(options: argparse.Namespace, folder: Path) -> Iterator[Path]:
    """A Hesper server that listens on the socket that is given, stopped afterwards."""
    socket, log = folder / "socket", Path(options.out) / "server.log"
    command = [*HESPER, "--socket", str(socket), *shlex.split(options.serve)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (socket.exists() and "ready on " in log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not come up:\n{log.read_text(errors='replace')}")
            time.sleep(POLL_SECONDS)
        yield socket
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def sides(options: argparse.Namespace, socket: Path) -> dict[str, Side]:
    """The bare driver, and Hesper on `socket`."""
    common = {"HOME": "/tmp", "MESA_SHADER_CACHE_DISABLE": "true"}
    common |= {"VK_LOADER_LAYERS_DISABLE": "~implicit~"}
    common |= dict(each.split("=", 1) for each in options.env)
    seen = "/" + str(socket.relative_to(options.root))
    venus = {"VK_DRIVER_FILES": options.venus, "VN_DEBUG": "vtest", "VTEST_SOCKET_NAME": seen}
    return {
        "bare": Side("bare", {**common, "VK_DRIVER_FILES": options.bare}),
        "hesper": Side("hesper", {**common, **venus}),
    }


def keep(path: Path, results: Mapping[str, Result]) -> None:
    """Write results as a JSON document."""
    rows = {case: [each.status, each.text] for case, each in sorted(results.items())}
    path.write_text(json.dumps(rows, indent=0) + "\n")


def there(path: Path) -> dict[str, Result]:
    """Results of an earlier run; none if there are none."""
    if not path.exists():
        return {}
    return {case: Result(*row) for case, row in json.loads(path.read_text()).items()}


def worse(bare: Mapping[str, Result], other: Mapping[str, Result]) -> list[str]:
    """Cases that fail on the other side only."""
    return [
        case
        for case, result in other.items()
        if result.status not in GOOD and case in bare and bare[case].status in GOOD
    ]


def group(case: str) -> str:
    """The first two levels of a case's name."""
    return ".".join(case.split(".")[1:3])


def show(all_results: Mapping[str, Mapping[str, Result]]) -> None:
    """Print the counts of all sides, and what differs."""
    for name, results in all_results.items():
        counts = Counter(result.status for result in results.values())
        print(f"{name:8}" + ", ".join(f"{count} {status}" for status, count in counts.items()))
    bare, hesper = all_results.get("bare", {}), all_results.get("hesper", {})
    lost = Counter(
        group(case)
        for case, result in hesper.items()
        if result.status == "NotSupported" and case in bare and bare[case].status != "NotSupported"
    )
    if lost:
        print(f"{lost.total()} that run on the bare driver only, by group:")
        print("".join(f"  {name} {count}\n" for name, count in lost.most_common()), end="")
    failing = worse(bare, hesper)
    print(f"{len(failing)} that fail through Hesper only:")
    for case in failing:
        print(f"  {hesper[case].status} {case}: {hesper[case].text}")


def record(options: argparse.Namespace, cases: list[str]) -> dict[str, dict[str, Result]]:
    """Run the cases on all sides, and those that fail through Hesper only once more."""
    out = Path(options.out)
    folder = Path(options.root) / f"tmp/conformance-{os.getpid()}"
    folder.mkdir(mode=0o755)
    found: dict[str, dict[str, Result]] = {}
    try:
        with serving(options, folder) as socket:
            ways = sides(options, socket)
            for name in options.sides.split(","):
                path = out / f"{name}.json"
                runner = Runner(options, ways[name], folder, there(path) if options.resume else {})
                left = [case for case in cases if case not in runner.results]
                runner.run(left, jobs=options.jobs, batch=options.batch)
                found[name] = runner.results
                keep(path, runner.results)
                for line in runner.faults:
                    print(line)
                if runner.faults and options.stop_on_fault:
                    raise SystemExit("the GPU has faulted; nothing after that is to be trusted")
            if options.again and "hesper" in found:
                known = found.get("bare") or there(out / "bare.json")
                again = Runner(options, ways["hesper"], folder)
                again.run(worse(known, found["hesper"]), jobs=1, batch=1)
                unsteady = [c for c, r in again.results.items() if r.status in GOOD]
                print("".join(f"passes by itself: {case}\n" for case in unsteady), end="")
    finally:
        shutil.rmtree(folder)
    for name in ("bare", "hesper"):
        found.setdefault(name, there(out / f"{name}.json"))
    return found


def main() -> int:
    """Record, print, compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deqp", help="deqp-vk, as a client sees it")
    parser.add_argument("cases", type=Path, help="file with a case's name a line")
    parser.add_argument("--root", default="/", help="folder that is / for clients")
    parser.add_argument("--out", default="conformance", help="folder for results and logs")
    parser.add_argument("--bare", required=True, help="manifest of the driver, for clients")
    parser.add_argument(
        "--venus", default="/usr/share/vulkan/icd.d/virtio_icd.json", help="Venus' manifest"
    )
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE, for clients")
    parser.add_argument("--serve", default="", help="options of `hesper serve`, as one word")
    parser.add_argument("--sides", default="bare,hesper", help="what to run, in this order")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=20, help="cases of one process")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for one case")
    parser.add_argument("--device", type=int, default=1, help="number of the device, from 1")
    parser.add_argument("--resume", action="store_true", help="keep results that are there")
    parser.add_argument("--again", action="store_true", help="try failing cases by themselves")
    parser.add_argument("--stop-on-fault", action="store_true", help="stop when the GPU faults")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.root = str(Path(options.root).resolve())
    Path(options.out).mkdir(parents=True, exist_ok=True)
    cases = [line.strip() for line in options.cases.read_text().splitlines() if line.strip()]
    found = record(options, cases)
    show(found)
    return 1 if worse(found["bare"], found["hesper"]) else 0


if __name__ == "__main__":
    sys.exit(main())
