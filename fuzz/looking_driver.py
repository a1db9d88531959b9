"""The driver behind the context's fuzz target: `driver/`, compiled once for each of its states.

Life: `library` compiles it, `host` opens it as a worker opens a driver.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from hesper import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hesper.isolation.driver import OpenDriver

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "fuzz" / "driver"
MODEL = Path(protocol.__file__).with_name("model.json")
FLAGS = ("-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wno-unused-function")


@functools.cache
def library() -> Path:
    """Compile it with $CC and $HESPER_FUZZ_FLAGS, unless that was done, and return its path.

    The headers are those of the kernel's build that is imported, which made the model as well.
    """
    compiler = [os.environ.get("CC", "cc"), *FLAGS]
    compiler += os.environ.get("HESPER_FUZZ_FLAGS", "").split()
    sources = [HERE / "driver" / name for name in ("driver.c", "driver.h", "generate.py")]
    digest = hashlib.sha256(" ".join(compiler).encode())
    for file in (*sources, MODEL):
        digest.update(file.read_bytes())
    built = BUILD / digest.hexdigest()[:16] / "libdriver.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        # Under names of this process's own: others may do the same.
        part = built.with_suffix(f".{os.getpid()}.c")
        made = part.with_suffix(".so")
        paths = os.pathsep.join(filter(None, sys.path))
        # Neither generator nor compiler is what is tested.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        generator = [sys.executable, str(sources[2]), str(MODEL), str(part)]
        subprocess.run(generator, check=True, env=environment | {"PYTHONPATH": paths})
        includes = [f"-I{HERE / 'driver'}", f"-I{headers()}"]
        command = [*compiler, *includes, str(sources[0]), str(part), "-o", str(made)]
        subprocess.run(command, check=True, env=environment)
        part.unlink()
        made.rename(built)
    return built


def headers() -> Path:
    """Where the build has put Vulkan's headers."""
    root = HERE.parent / "build"
    for build in (MODEL.resolve().parent, *(root / name for name in _BUILDS)):
        folder = build / "src/hesper/kernel" if not (build / "vulkan_core.h").exists() else build
        if (folder / "vulkan_core.h").exists():
            return folder
    raise FileNotFoundError("no vulkan_core.h; scripts/dev-build makes it")


_BUILDS = ("fuzz/build", "sanitize", "dev", "install")


@functools.cache
def host() -> OpenDriver:
    """The driver, opened as a worker opens one that was probed."""
    # The kernel of the fuzzers' build can be imported where libFuzzer is, and nowhere else.
    from hesper.guest import Limits
    from hesper.host.drivers import Device, Driver
    from hesper.host.seen import MemorySeen
    from hesper.isolation.driver import OpenDriver, preload
    from hesper.portable import page_size

    path = str(library())
    seen = MemorySeen(
        alignment=page_size(),
        imported=2,
        buffers=2,
        linear_images=2,
        tiled_images=2,
        unstated_images=2,
        native_images=3,
        sparse=True,
    )
    device = Device(
        name="fuzz",
        type="virtual",
        api_version="1.4.0",
        driver_id=0,
        driver_name="fuzz",
        driver_info="",
        is_portability=False,
        imports_host_memory=True,
        memory=seen,
    )
    driver = Driver("fuzz", "", path, "1.4.0", False, path, devices=(device,))
    preload()
    limits = Limits(memory=160 << 20, objects=4096, rings=8, arena=1 << 20, resources=64)
    return OpenDriver(driver, limits, None, 0)


def fail_after(calls: int, result: int) -> None:
    """Let all calls fail with a VkResult, from the `calls`th on that can fail; 0: none does."""
    _control().fuzz_fault(ctypes.c_int64(calls), ctypes.c_int32(result))


@functools.cache
def _control() -> ctypes.CDLL:
    return ctypes.CDLL(str(library()))
