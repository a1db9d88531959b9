"""Build one wheel of Hesper with zig, for this system or another one.

    build-aux/wheel.py TARGET OUTPUT

Run by the Python that the wheel is for, with what the build needs (pyproject.toml's groups `build`
and `wheels`).  Headers are this Python's own: they differ between systems by `pyconfig.h` alone,
which is mended where `build-aux/pyconfig_check.c` would not compile.  What the build asks of
`sysconfig` is answered for the other system, in the way of CPython's own cross builds
(`_PYTHON_HOST_PLATFORM`, `_PYTHON_SYSCONFIGDATA_NAME`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIGURATION = "_hesper_sysconfigdata"


@dataclass(frozen=True)
class Target:
    """A system that wheels are built for."""

    zig: str
    """zig's name of it, with the oldest release that wheels are to run on."""
    system: str
    """Meson's name of it, and Python's of its platform."""
    cpu: str
    platform: str
    """`sysconfig.get_platform()` there."""
    multiarch: str
    """What names of compiled modules have of it."""


TARGETS = {
    "macos-arm64": Target("aarch64-macos.11.0", "darwin", "aarch64", "macosx-11.0-arm64", "darwin"),
    "macos-x86_64": Target("x86_64-macos.11.0", "darwin", "x86_64", "macosx-11.0-x86_64", "darwin"),
    "linux-x86_64": Target(
        "x86_64-linux-gnu.2.28", "linux", "x86_64", "linux-x86_64", "x86_64-linux-gnu"
    ),
    "linux-aarch64": Target(
        "aarch64-linux-gnu.2.28", "linux", "aarch64", "linux-aarch64", "aarch64-linux-gnu"
    ),
}


# What a Python's pyconfig.h says there and not on Linux, of what headers may go by.
DARWIN = {"SIZEOF_PTHREAD_KEY_T": "8"}


def zig() -> str:
    """The compiler, a program of the package ziglang."""
    import ziglang

    return str(Path(ziglang.__file__).parent / "zig")


def cross_file(target: Target) -> str:
    """What Meson has to know of a system that the build does not run on."""
    return f"""\
[binaries]
c = ['{zig()}', 'cc', '-target', '{target.zig}']
ar = ['{zig()}', 'ar']
[host_machine]
system = '{target.system}'
cpu_family = '{target.cpu}'
cpu = '{target.cpu}'
endian = 'little'
[properties]
needs_exe_wrapper = true
"""


def configuration(target: Target, include: Path) -> dict[str, object]:
    """What `sysconfig` says there, as far as a build asks; headers are in `include`."""
    variables = dict(sysconfig.get_config_vars())
    soabi = f"cpython-{sys.version_info.major}{sys.version_info.minor}-{target.multiarch}"
    suffix = f".{soabi}.so"
    variables.update(SOABI=soabi, EXT_SUFFIX=suffix, MULTIARCH=target.multiarch, LIBPYTHON="")
    variables["INCLUDEPY"] = str(include)
    if target.system == "darwin":
        variables.update(MACHDEP="darwin", MACOSX_DEPLOYMENT_TARGET="11.0")
    return variables


def copy_headers(target: Target, folder: Path) -> None:
    """Put this Python's headers for `target` into `folder`; raises unless they fit it."""
    for path in dict.fromkeys(sysconfig.get_path(name) for name in ("include", "platinclude")):
        shutil.copytree(path, folder, dirs_exist_ok=True)
    # A distribution's may only choose the one of an architecture.
    own = Path(sysconfig.get_config_h_filename())
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    chosen = own.parent.parent / multiarch / own.parent.name / own.name
    text = (chosen if chosen.is_file() else own).read_text()
    for name, value in DARWIN.items() if target.system == "darwin" else ():
        text += f"#undef {name}\n#define {name} {value}\n"
    (folder / "pyconfig.h").write_text(text)
    command = [zig(), "cc", "-target", target.zig, "-Werror", f"-I{folder}", "-c"]
    check = str(ROOT / "build-aux/pyconfig_check.c")
    subprocess.run([*command, check, "-o", str(folder / "check.o")], check=True)


def main() -> None:
    """Build the wheel and print its path."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("output", type=Path, help="the folder that the wheel is put in")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    output = arguments.output.resolve()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    work = ROOT / "build/wheels" / f"{arguments.target}-{version}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    output.mkdir(parents=True, exist_ok=True)
    copy_headers(target, work / "include")

    variables = configuration(target, work / "include")
    (work / f"{CONFIGURATION}.py").write_text(f"build_time_vars = {variables!r}\n")
    cross = work / "cross.ini"
    cross.write_text(cross_file(target))
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(work),
        "_PYTHON_SYSCONFIGDATA_NAME": CONFIGURATION,
        "_PYTHON_HOST_PLATFORM": target.platform,
        "MACOSX_DEPLOYMENT_TARGET": "11.0",
    }
    settings = {"build-dir": str(work / "build"), "setup-args": [f"--cross-file={cross}"]}
    hook = f"import mesonpy; print(mesonpy.build_wheel({str(output)!r}, {settings!r}))"
    log = work / "log"
    with log.open("wb") as file:
        built = subprocess.run(
            [sys.executable, "-c", hook],
            cwd=ROOT,
            env=environment,
            check=False,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    lines = log.read_text(errors="replace").splitlines()
    if built.returncode:
        last = "\n".join(lines[-40:])
        raise SystemExit(f"{last}\nwheel.py: no wheel for {target.zig}: see {log}")
    print(output / lines[-1])


if __name__ == "__main__":
    main()
