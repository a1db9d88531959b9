"""Programs that others have written, and how to read what they print."""

from __future__ import annotations

import json
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from hesper.bench.metric import Metric, Unit

if TYPE_CHECKING:
    from hesper.bench.suites.base import Options

GGML: Mapping[str, str] = MappingProxyType({"GGML_VK_VISIBLE_DEVICES": "0"})
"""ggml leaves processors' Vulkan devices alone unless told which to take."""

SCENES = ("vertex", "texture", "shading", "effect2d", "desktop", "cube", "clear")

LLAMA_TESTS = "/usr/libexec"
"""Where Debian keeps llama.cpp's tests, in folders by architecture."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Program(ABC):
    """A program that measures something itself."""

    name: str
    environment: Mapping[str, str] = MappingProxyType({})

    def __init__(self, path: str) -> None:
        """path: of the executable."""
        self.path = path

    @abstractmethod
    def commands(self, options: Options) -> list[list[str]]:
        """What to run, one after the other."""

    @abstractmethod
    def read(self, output: str) -> dict[str, float]:
        """Figures by key, from the output of one command; none when there are none."""

    @abstractmethod
    def metric(self, key: str) -> Metric:
        """What a key of `read` means."""


class Vkmark(Program):
    """Frames per second of vkmark's scenes, without a window."""

    name = "vkmark"

    def commands(self, options: Options) -> list[list[str]]:
        """All scenes in one run."""
        seconds = 0.5 if options.quick else 2.0
        scenes = [word for scene in SCENES for word in ("-b", f"{scene}:duration={seconds}")]
        return [[self.path, "--winsys", "headless", "-s", "400x300", *scenes]]

    def read(self, output: str) -> dict[str, float]:
        """Lines such as `[cube] duration=2.0: FPS: 1234 FrameTime: ...`."""
        found = re.findall(r"^\[(\w+)\].*FPS: (\d+)", output, re.MULTILINE)
        return {scene: float(rate) for scene, rate in found}

    def metric(self, key: str) -> Metric:
        """A scene."""
        return Metric.rate(f"vkmark {key}", Unit.FRAMES_PER_SECOND)


class LlamaBench(Program):
    """Tokens a second of llama-bench: reading a prompt, and writing."""

    name = "llama-bench"
    environment = GGML

    def __init__(self, path: str, model: Path) -> None:
        """model: GGUF file to run."""
        super().__init__(path)
        self._model = model

    def commands(self, options: Options) -> list[list[str]]:
        """A prompt of 128 tokens and an answer of 64."""
        repeats = "1" if options.quick else "3"
        size = ["-p", "128", "-n", "64", "-r", repeats, "-ngl", "99"]
        return [[self.path, "-m", str(self._model), *size, "-o", "json"]]

    def read(self, output: str) -> dict[str, float]:
        """A JSON list, one entry a test."""
        found = re.search(r"^\[$", output, re.MULTILINE)
        if found is None:
            return {}
        figures = {}
        for test in json.loads(output[found.start() :]):
            name = f"pp{test['n_prompt']}" if test["n_prompt"] else f"tg{test['n_gen']}"
            figures[name] = float(test["avg_ts"])
        return figures

    def metric(self, key: str) -> Metric:
        """A test."""
        return Metric.rate(f"llama-bench {key}", Unit.TOKENS_PER_SECOND)


@dataclass(frozen=True)
class Case:
    """One operation that test-backend-ops times."""

    title: str
    operation: str
    parameters: str
    """A regular expression that one case matches."""
    software: bool = False
    """Whether it ends in time on a processor."""


_WEIGHTS = r"type_b=f32,m=4096,n={},k=14336,bs=.1,1.,nr=.1,1.,per=.0,1,2,3.,k_v=0,o=1"
CASES = {
    "add": Case("ADD, 16 KB", "ADD", r"ne=.4096,1,1,1.,nr=.1,1,1,1.", software=True),
    "add_large": Case("ADD, 8 MB", "ADD", r"ne=.4096,1,1,1.,nr=.1,512,1,1."),
    "mul_f16_1": Case("MUL_MAT f16, 1 column", "MUL_MAT", "type_a=f16," + _WEIGHTS.format(1)),
    "mul_f16": Case("MUL_MAT f16, 512 columns", "MUL_MAT", "type_a=f16," + _WEIGHTS.format(512)),
    "mul_q4_1": Case("MUL_MAT q4_0, 1 column", "MUL_MAT", "type_a=q4_0," + _WEIGHTS.format(1)),
    "mul_q4": Case("MUL_MAT q4_0, 512 columns", "MUL_MAT", "type_a=q4_0," + _WEIGHTS.format(512)),
}


class BackendOps(Program):
    """Times of llama.cpp's single operations (`test-backend-ops perf`)."""

    name = "test-backend-ops"
    environment = GGML

    def commands(self, options: Options) -> list[list[str]]:
        """One case each; the large ones only on a GPU."""
        return [
            [self.path, "perf", "-b", "Vulkan0", "-o", case.operation, "-p", case.parameters]
            for case in CASES.values()
            if case.software or not options.software
        ]

    def read(self, output: str) -> dict[str, float]:
        """Lines such as `  ADD(ne=...):  24570 runs -    54.38 us/run - ...`."""
        text = _COLOUR.sub("", output)
        figures = {}
        for operation, given, time in re.findall(
            r"^  (\w+)\((.*)\):\s+\d+ runs -\s+([\d.]+) us/run", text, re.MULTILINE
        ):
            for key, case in CASES.items():
                if case.operation == operation and re.search(case.parameters, given):
                    figures[key] = float(time)
        return figures

    def metric(self, key: str) -> Metric:
        """A case."""
        return Metric.cost(f"ggml {CASES[key].title}")


def find_backend_ops() -> str | None:
    """The path of test-backend-ops, where it is installed."""
    on_path = shutil.which("test-backend-ops")
    if on_path:
        return on_path
    folders: Sequence[Path] = sorted(Path(LLAMA_TESTS).glob("*/llama.cpp-tests/test-backend-ops"))
    return str(folders[0]) if folders else None
