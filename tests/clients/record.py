"""Run llama.cpp's tests and benchmarks on the bare driver and through Hesper, and print both.

    python tests/clients/record.py [--json]

Started by `scripts/record-sid`.  Ends with 1 when the counts of the tests differ.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass

from servers import SCENES, SETUPS, Client, Place, Setup, bare, debian_root, serving

PATIENCE = 1800.0
"""Seconds for one program: a processor compiles llama.cpp's shaders for minutes."""
TESTS = "/usr/libexec/x86_64-linux-gnu/llama.cpp-tests/test-backend-ops"
ENVIRON = {
    # ggml leaves processors' Vulkan devices alone unless told which to take.
    "GGML_VK_VISIBLE_DEVICES": "0",
}
OPERATIONS = {
    "ADD": ["-o", "ADD"],
    "MUL_MAT f16": ["-o", "MUL_MAT", "-p", "type_a=f16,type_b=f32,m=16,n=1,"],
    "MUL_MAT f32": ["-o", "MUL_MAT", "-p", "type_a=f32,type_b=f32,m=16,n=1,k=256"],
    "MUL_MAT q4_0": ["-o", "MUL_MAT", "-p", "type_a=q4_0,type_b=f32,m=16,n=1,k=256"],
}
"""Few enough for a processor: larger products compile shaders for minutes."""


@dataclass(frozen=True)
class Counts:
    """Results of one operation's tests."""

    ok: int
    failed: int
    skipped: int


@dataclass(frozen=True)
class Record:
    """What one side has shown."""

    device: str
    operations: dict[str, Counts]
    tokens_per_second: dict[str, float]
    """By llama-bench test: pp128, tg64."""
    frames_per_second: dict[str, int]
    """By vkmark scene."""


def counts(client: Client, arguments: list[str]) -> Counts:
    """Run some of test-backend-ops."""
    command = [TESTS, "test", "-b", "Vulkan0", *arguments]
    done = client.run(command, environ=ENVIRON, timeout=PATIENCE, check=False)
    output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    lines = [line for line in output.splitlines() if re.match(r"^  [A-Z_0-9]+\(", line)]
    if not lines:
        raise RuntimeError(f"no test has run: {output}\n{done.stderr}")
    ok = sum(line.endswith(": OK") for line in lines)
    skipped = sum("not supported" in line for line in lines)
    return Counts(ok, len(lines) - ok - skipped, skipped)


def rates(client: Client, model: str, repeat: int) -> dict[str, float]:
    """Run llama-bench."""
    arguments = [
        "-m",
        model,
        "-p",
        "128",
        "-n",
        "64",
        "-r",
        str(repeat),
        "-ngl",
        "99",
        "-o",
        "json",
    ]
    done = client.run(["llama-bench", *arguments], environ=ENVIRON, timeout=PATIENCE)
    found = json.loads(done.stdout[done.stdout.index("[") :])
    names = [f"pp{run['n_prompt']}" if run["n_prompt"] else f"tg{run['n_gen']}" for run in found]
    return {name: run["avg_ts"] for name, run in zip(names, found, strict=True)}


def frames(client: Client, seconds: float) -> dict[str, int]:
    """Run vkmark."""
    scenes = [word for scene in SCENES for word in ("-b", f"{scene}:duration={seconds}")]
    done = client.run(["vkmark", "--winsys", "headless", "-s", "400x300", *scenes], environ=ENVIRON)
    found = re.findall(r"^\[(\w+)\].*FPS: (\d+)", done.stdout, re.MULTILINE)
    return {scene: int(rate) for scene, rate in found}


def record(client: Client, model: str, options: argparse.Namespace) -> Record:
    """Run everything on one side."""
    report = client.run(["vulkaninfo", "--summary"]).stdout
    device = re.search(r"deviceName\s*= (.+)", report)
    if device is None:
        raise RuntimeError(f"no device: {report}")
    return Record(
        device[1].strip(),
        {name: counts(client, arguments) for name, arguments in OPERATIONS.items()},
        rates(client, model, options.repeat),
        frames(client, options.seconds),
    )


def show(sides: dict[str, Record]) -> None:
    """Print a table of the sides."""
    print(f"{'':16}" + "".join(f"{name:>26}" for name in sides))
    for name in OPERATIONS:
        cells = [side.operations[name] for side in sides.values()]
        texts = [f"{each.ok} OK, {each.failed} FAIL, {each.skipped} -" for each in cells]
        print(f"{name:16}" + "".join(f"{text:>26}" for text in texts))
    first = next(iter(sides.values()))
    for name in first.tokens_per_second:
        values = [side.tokens_per_second[name] for side in sides.values()]
        print(f"{name:16}" + "".join(f"{value:>22.1f} t/s" for value in values))
    for name in first.frames_per_second:
        values = [side.frames_per_second.get(name, 0) for side in sides.values()]
        print(f"{name:16}" + "".join(f"{value:>22} FPS" for value in values))


def record_all(place: Place, setups: list[Setup], options: argparse.Namespace) -> dict[str, Record]:
    """Run everything on the bare driver, and through Hesper in each setup."""
    model = place.exchange / "random.gguf"
    subprocess.run([sys.executable, "-m", "hesper.bench.random_llama", model], check=True)
    try:
        print("bare driver ...", file=sys.stderr, flush=True)
        sides = {"bare": record(bare(place), place.path(model), options)}
        for setup in setups:
            print(f"Hesper ({setup.name}) ...", file=sys.stderr, flush=True)
            with serving(place, setup) as server:
                sides[setup.name] = record(server.client(place), place.path(model), options)
    finally:
        model.unlink()
    return sides


def main() -> int:
    """Record, print, compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each llama-bench test")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each vkmark scene")
    parser.add_argument("--setup", action="append", choices=[setup.name for setup in SETUPS])
    options = parser.parse_args()
    if not shutil.which("chroot"):
        raise SystemExit("record: chroot is needed")
    setups = [setup for setup in SETUPS if setup.name in (options.setup or ["plain"])]
    sides = record_all(debian_root("sid"), setups, options)
    if options.json:
        print(json.dumps({name: asdict(side) for name, side in sides.items()}, indent=2))
    else:
        for name, side in sides.items():
            print(f"{name}: {side.device}")
        show(sides)
    same = all(side.operations == sides["bare"].operations for side in sides.values())
    print("test counts: the same" if same else "test counts: DIFFERENT", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
