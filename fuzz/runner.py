"""Run fuzz targets from the corpus, all at once, and say what they did: `scripts/fuzz --help`.

What is found lies below build/fuzz/TARGET: `corpus/`, what the fuzzer has added to the one in
fuzz/corpus; `crash-*`, `timeout-*`, `oom-*`, inputs that fail; `log`, what libFuzzer said.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz import looking_driver
from fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "build" / "fuzz"
CORPUS = ROOT / "fuzz" / "corpus"
MAX_LENGTH = 4096
"""Bytes of an input, but for targets that take what real clients say."""
LENGTHS = {"context": 1 << 16, "recording": 1 << 16}
RECORDED = "recorded"
"""The folder below a target's that `fuzz.record` fills."""
HANG_SECONDS = 60
MEMORY_MB = 3072
FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")
STATUS = re.compile(r"#(\d+).*?cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")


@dataclass
class Job:
    """One libFuzzer process."""

    target: str
    number: int
    process: subprocess.Popen[bytes]
    log: Path
    start: float

    def figures(self) -> tuple[int, int, int]:
        """Executions, edges and inputs, as libFuzzer has last said."""
        found = STATUS.findall(self.log.read_text(errors="replace"))
        if not found:
            return 0, 0, 0
        executions, edges, _, inputs, _ = found[-1]
        return int(executions), int(edges), int(inputs)


def environment() -> dict[str, str]:
    """What a target runs in: the sanitizer and libFuzzer that atheris brings, before all else."""
    import atheris

    preload = Path(atheris.path()) / "asan_with_fuzzer.so"
    return os.environ | {
        # C++'s exceptions must be known to the sanitizer from the beginning.
        "LD_PRELOAD": f"{preload} {loaded('libstdc++.so.6')}",
        # Leaks: an interpreter gives most of its memory back to nobody.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:malloc_context_size=8"
        ":quarantine_size_mb=64:handle_abort=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONFAULTHANDLER": "",
        # Its own allocator would hide what is read behind objects.
        "PYTHONMALLOC": "malloc",
    }


def loaded(name: str) -> str:
    """The file that the system loads for a library of that name.  Raises `OSError`."""
    ctypes.CDLL(name)
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split()[-1] for line in lines if f"/{name}" in line]
    return found[0]


def start(target: str, number: int, arguments: list[str], seconds: int) -> Job:
    """Start one process of a target."""
    folder = OUTPUT / target
    for name in ("corpus", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    log = folder / f"log{number or ''}"
    command = [
        *(sys.executable, "-m", "fuzz", target),
        *arguments,
        f"-artifact_prefix={folder}/",
        f"-max_total_time={seconds}",
        f"-max_len={LENGTHS.get(target, MAX_LENGTH)}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        *("-detect_leaks=0", "-print_funcs=0", "-len_control=0", "-reload=30"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment(), cwd=folder / "work"
        )
    return Job(target, number, process, log, time.monotonic())


def corpora(target: str) -> list[Path]:
    """Where its inputs are: what fuzzers have added, the project's, what real clients have said."""
    known = [CORPUS / target, OUTPUT / target / RECORDED]
    return [OUTPUT / target / "corpus", *(folder for folder in known if folder.exists())]


def findings(target: str) -> set[Path]:
    """Inputs that fail."""
    return {file for pattern in FINDINGS for file in (OUTPUT / target).glob(pattern)}


def fuzz(targets: list[str], seconds: int, jobs: int) -> bool:
    """Fuzz all at once; whether nothing was found."""
    before = {target: findings(target) for target in targets}
    running = []
    for target in targets:
        folders = [str(folder) for folder in corpora(target)]
        running += [start(target, number, folders, seconds) for number in range(jobs)]
    is_clean = True
    for job in running:
        status = wait(job, seconds)
        elapsed = time.monotonic() - job.start
        executions, edges, inputs = job.figures()
        new = sorted(file.name for file in findings(job.target) - before[job.target])
        result = "ok" if status == 0 and not new else f"FAILED ({status}) {' '.join(new)}"
        print(
            f"    {job.target:<9} {executions:>9} executions, {executions / elapsed:>7.1f}/s,"
            f" {edges:>6} edges, {inputs:>5} inputs: {result}",
            flush=True,
        )
        if result != "ok":
            is_clean = False
            tell(job)
    return is_clean


def wait(job: Job, seconds: int) -> int:
    """Wait for the end, which may be some hangs after its time."""
    try:
        return job.process.wait(seconds + 4 * HANG_SECONDS)
    except subprocess.TimeoutExpired:
        job.process.kill()
        return job.process.wait()


def tell(job: Job) -> None:
    """Print what was said of a failure."""
    lines = job.log.read_text(errors="replace").splitlines()
    begins = [at for at, line in enumerate(lines) if "ERROR" in line or "Traceback" in line]
    first = begins[0] if begins else max(0, len(lines) - 40)
    print("\n".join(f"        {line[:160]}" for line in lines[first : first + 60]), flush=True)


def once(targets: list[str], make: str) -> bool:
    """Run what there is (`replay`), or make the corpus small (`merge`)."""
    is_clean = True
    for target in targets:
        known = list(map(str, corpora(target)))
        if make == "merge":
            merged = OUTPUT / target / "merged"
            merged.mkdir(parents=True, exist_ok=True)
            arguments = ["-merge=1", str(merged), *known]
        else:
            arguments = ["-runs=0", *known, *map(str, findings(target))]
        job = start(target, 0, arguments, 3600)
        status = wait(job, 3600)
        print(f"    {target}: {make}: {'ok' if status == 0 else f'FAILED ({status})'}")
        if status:
            is_clean = False
            tell(job)
    return is_clean


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fuzz Hesper from the corpus.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=120, help="how long (default: 120)")
    parser.add_argument("--jobs", type=int, default=1, help="processes of each target (default: 1)")
    parser.add_argument("--replay", action="store_true", help="run the corpus and past findings")
    parser.add_argument("--merge", action="store_true", help="gather what is worth keeping")
    wanted = parser.parse_args()
    targets = wanted.targets or list(TARGETS)
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    looking_driver.library()
    if wanted.replay or wanted.merge:
        is_clean = once(targets, "merge" if wanted.merge else "replay")
    else:
        is_clean = fuzz(targets, wanted.seconds, wanted.jobs)
    sys.exit(not is_clean)


if __name__ == "__main__":
    main()
