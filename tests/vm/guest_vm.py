"""A guest under the tests' control: the device in this process, QEMU, a shell over the serial port.

QEMU and everything in the guest come from a Debian root, the *tree* (see `initramfs`); QEMU runs
in it by chroot.  The guest is emulated: nothing of this needs KVM.  Its architecture is this
machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedRWPair
from pathlib import Path
from typing import IO, Any, TypeAlias

from initramfs import Tree, build
from PIL import Image

from confined import check_workers
from hesper.display import snapshot
from hesper.display.scanout import DEFAULT_SIZE, Display, Size, Update
from hesper.gpu.runner import GpuOptions
from hesper.portable import architecture
from hesper.vhost_user_gpu import VhostUserGpu
from hesper.vm.machine import Machine
from hesper.vm.process import QemuProcess
from hesper.vm.qemu import Qemu

SLOWNESS = float(os.environ.get("HESPER_TEST_SLOWNESS", "1"))
"""How many times as long as usual everything may take: machines in emulated machines are slow."""
BOOT_SECONDS = 180.0 * SLOWNESS
PATIENCE = 120.0 * SLOWNESS
CONSOLES = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
KEPT_SIZE = (800, 800)
"""What pictures for the documentation fit into."""
BUTTON_SECONDS = 3.0
"""Between two times that a sleeping guest's button is pressed."""
SOUND_MODULES = ("snd-hda-codec-generic", "snd-hda-intel")
"""In this order: a card without its codec's driver is given up."""
GUEST = Path(__file__).parent / "guest"
_ESCAPE = re.compile(r"\x1b(\[[0-9;?!]*[a-zA-Z]|[=>])")
"""What a terminal would obey and not show."""


def compile_program(name: str, folder: Path) -> Path:
    """Compile `guest/NAME.c`; shaders it includes are compiled from `guest/` as well."""
    source = GUEST / f"{name}.c"
    for shader in re.findall(r'#include "(\w+)\.h"', source.read_text()):
        stem, _, stage = shader.rpartition("_")
        for file in (GUEST / f"{shader}.comp", GUEST / f"{stem}.{stage}"):
            if file.exists():
                header = folder / f"{shader}.h"
                _run("glslangValidator", "-V", "--vn", shader, str(file), "-o", str(header))
    program = folder / name
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", f"-I{folder}", "-I/usr/include/libdrm")
    _run("gcc", *flags, str(source), "-o", str(program), "-lvulkan")
    return program


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Exchange:
    """A folder that this machine and programs in the tree both see."""

    tree: Tree
    folder: Path

    def inside(self, path: Path) -> Path:
        """Return how the tree's programs call `path`."""
        return Path("/") / path.relative_to(self.tree.root)

    @property
    def qemu(self) -> Qemu:
        """The tree's QEMU."""
        return Qemu(["chroot", str(self.tree.root), f"qemu-system-{architecture()}"])


def keep(image: Image.Image, name: str, *, colours: int = 64) -> None:
    """Keep a picture for the documentation, where `HESPER_TEST_PICTURES` names a folder."""
    if folder := os.environ.get("HESPER_TEST_PICTURES"):
        small = image.convert("RGB")
        small.thumbnail(KEPT_SIZE)
        small.quantize(colours, dither=Image.Dither.NONE).save(
            Path(folder) / f"{name}.png", optimize=True
        )


@contextlib.contextmanager
def exchange(tree: Tree) -> Iterator[Exchange]:
    """Make a folder for one machine."""
    parent = tree.root / "exchange"
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield Exchange(tree, folder)
    finally:
        shutil.rmtree(folder)


@dataclass
class Guest:
    """QEMU with a guest in it, whatever serves its GPU.  A context manager."""

    place: Exchange
    programs: Sequence[Path] = ()
    from_tree: Sequence[str] = ("usr/bin/vulkaninfo",)
    extra: Sequence[str] = ()
    has_agent: bool = False
    """Whether somebody listens on `agent_socket`."""
    has_sound: bool = False
    """Whether it has a sound card, which can be heard on `sound_socket`."""
    output: list[str] = field(default_factory=list)
    """What has come over the serial port, in lines."""

    def __post_init__(self) -> None:
        """Prepare what a thread fills."""
        self._news = threading.Condition()
        self._read = 0
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: BufferedRWPair | None = None

    @property
    def gpu_socket(self) -> Path:
        """Where QEMU looks for the device."""
        return self.place.folder / "gpu"

    @property
    def agent_socket(self) -> Path:
        """Where QEMU connects the guest's agent."""
        return self.place.folder / "agent"

    @property
    def sound_socket(self) -> Path:
        """Where QEMU lets us hear the guest."""
        return self.place.folder / "sound"

    @property
    def input_socket(self) -> Path:
        """A monitor of QEMU's beside the one that `monitor` uses; each serves one at a time."""
        return self.place.folder / "qmp-input"

    def __enter__(self) -> Guest:
        """Boot."""
        inside = self.place.inside
        machine = Machine(
            architecture=architecture(),
            gpu_socket=inside(self.gpu_socket),
            monitor_socket=inside(self.place.folder / "qmp"),
            agent_socket=inside(self.agent_socket) if self.has_agent else None,
            memory=1 << 30,
            cpus=2,
            accelerator="tcg",
            audio="none",
            sound_socket=inside(self.sound_socket) if self.has_sound else None,
            network=False,
            serial="stdio",
            extra=[*self.extra, "-qmp", f"unix:{inside(self.input_socket)},server=on,wait=off"],
            **self.boot_options(),
        )
        qemu = self.place.qemu
        self._process = QemuProcess(
            [*qemu.command, *machine.arguments(qemu)],
            own_group=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._listen, args=[self._process.stdout], daemon=True).start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def boot_options(self) -> dict[str, Any]:
        """Return what of `Machine` says what is booted."""
        initrd = self.place.folder / "initrd"
        modules = SOUND_MODULES if self.has_sound else ()
        build(
            self.place.tree,
            initrd,
            programs=self.programs,
            from_tree=self.from_tree,
            modules=modules,
        )
        return {
            "kernel": self.place.inside(self.place.tree.kernel),
            "initrd": self.place.inside(initrd),
            "append": f"console={CONSOLES[architecture()]} quiet panic=-1 no_timer_check",
        }

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()

    def kill(self) -> None:
        """End QEMU as it ends when it crashes."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_ended(self) -> int:
        """Wait for QEMU to end by itself."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    @property
    def running(self) -> bool:
        """Whether QEMU is there."""
        return self._process is not None and self._process.poll() is None

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            with self._news:
                text = line.decode(errors="replace").strip("\r\n")
                self.output.append(_ESCAPE.sub("", text))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_line(self, pattern: str, seconds: float = PATIENCE) -> list[str]:
        """Wait for a line that matches; returns the lines since the last wait, that one last."""
        deadline = time.monotonic() + seconds
        seen = self._read
        with self._news:
            while True:
                while self._read < len(self.output):
                    self._read += 1
                    if re.search(pattern, self.output[self._read - 1]):
                        return self.output[seen : self._read]
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "QEMU has ended" if self._ended else f"{seconds:g} s have passed"
                    lines = "\n".join(self.output[-60:])
                    raise AssertionError(f"no {pattern!r}: {why}; the guest said:\n{lines}")
                self._news.wait(left)

    def wait_ready(self) -> None:
        """Wait until the guest takes orders."""
        self.wait_line("^guest: ready", BOOT_SECONDS)

    def send(self, line: str) -> None:
        """Type a line."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def run(self, command: str, *, seconds: float = PATIENCE, check: bool = True) -> str:
        """Run a shell command in the guest and return what it prints."""
        self.send(command)
        lines = self.wait_line("guest: done", seconds)
        text = "\n".join(lines)
        before, _, status = text.rpartition("guest: done ")
        assert not check or status == "0", f"{command}: status {status}\n{before}"
        return before

    def print_typed_line(self) -> None:
        """Have it print the next line that comes by its keyboard; `wait_line` for the end of that.

        Its console is open when this returns: what is typed while nobody has it is nobody's.
        """
        self.run("exec 9< /dev/tty1")
        self.send("head -n1 <&9; exec 9<&-")

    def sleep_and_wake(self) -> None:
        """Have the guest sleep, and wake it by its power button."""
        self.send("echo mem > /sys/power/state")
        deadline = time.monotonic() + PATIENCE
        # Before it sleeps the button does nothing, but to make an event of which nobody knows.
        while True:
            self.monitor("system_powerdown")
            with contextlib.suppress(AssertionError):
                self.wait_line("guest: done 0", BUTTON_SECONDS)
                break
            assert time.monotonic() < deadline, "it does not wake"
        assert "PM: suspend exit" in self.run("dmesg | tail -n 40")

    def monitor(self, command: str, **arguments: Any) -> Any:
        """Have QEMU's monitor do something; returns what it says."""
        if self._monitor is None:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(str(self.place.folder / "qmp"))
            self._monitor = sock.makefile("rwb")
            sock.close()
            self._monitor.readline()
            self._ask({"execute": "qmp_capabilities"})
        return self._ask({"execute": command, "arguments": arguments})

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._monitor is not None
        self._monitor.write(json.dumps(order).encode() + b"\n")
        self._monitor.flush()
        while line := self._monitor.readline():
            answer = json.loads(line)
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]
        raise AssertionError("QEMU has closed its monitor")


TREE_DEVICE = (
    "-fsdev",
    # QEMU runs in the tree: what it calls / is the tree.
    "local,id=tree,path=/,security_model=none,readonly=on",
    "-device",
    "virtio-9p-pci,fsdev=tree,mount_tag=tree",
)
"""Shows the tree to the guest, for `GpuGuest.enter_tree`."""

_ENTER_TREE = (
    "mkdir -p /tree /changes /root-in-tree",
    "mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose tree /tree",
    "mount -t tmpfs changes /changes; mkdir /changes/upper /changes/work",
    "layers=lowerdir=/tree,upperdir=/changes/upper,workdir=/changes/work",
    "mount -t overlay -o $layers root /root-in-tree",
    "for d in dev proc sys tmp; do mount -o bind /$d /root-in-tree/$d; done",
    "mount -t tmpfs run /root-in-tree/run; mkdir -m 700 /root-in-tree/run/user",
    'in_tree() { chroot /root-in-tree env XDG_RUNTIME_DIR=/run/user HOME=/root "$@"; }',
)


@dataclass
class GpuGuest:
    """A guest and its GPU, in this process."""

    guest: Guest
    gpu: VhostUserGpu

    @property
    def display(self) -> Display:
        """The guest's screens."""
        return self.gpu.display

    def run(self, command: str, **options: Any) -> str:
        """See `Guest.run`."""
        return self.guest.run(command, **options)

    def enter_tree(self) -> None:
        """Make `in_tree COMMAND...` run a program of the tree in the guest.

        Needs `TREE_DEVICE`; what the guest writes there is forgotten.
        """
        for line in _ENTER_TREE:
            self.run(line)

    def screen(self, index: int = 0) -> Image.Image:
        """What a screen shows."""
        return snapshot.take(self.display[index])

    def wait_pixel(
        self, place: tuple[int, int], colour: tuple[int, int, int], *, index: int = 0
    ) -> None:
        """Wait until a pixel of a screen has a colour."""
        self.wait_screen(lambda image: image.getpixel(place) == colour, index=index)

    def wait_screen(self, condition: Any, *, index: int = 0) -> Image.Image:
        """Wait until a screen's image meets a condition; returns it."""
        image: Image.Image | None = None

        def seen(update: Update) -> bool:
            nonlocal image
            image = self.screen(index) if update.surface is not None else None
            return image is not None and bool(condition(image))

        self.wait_update(seen, index=index)
        assert image is not None
        return image

    def wait_update(self, condition: Callable[[Update], bool], *, index: int = 0) -> Update:
        """Wait until what a screen tells of meets a condition; returns it."""
        news = threading.Event()
        subscription = self.display[index].subscribe(news.set)
        deadline = time.monotonic() + PATIENCE
        try:
            while True:
                news.clear()
                update = subscription.take()
                if condition(update):
                    return update
                left = deadline - time.monotonic()
                assert left > 0, "the screen does not show it"
                news.wait(left)
        finally:
            subscription.close()


Beside: TypeAlias = Callable[[Guest, VhostUserGpu], contextlib.AbstractContextManager[object]]


def _nothing(_guest: Guest, _gpu: VhostUserGpu) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


@contextlib.contextmanager
def gpu_guest(
    tree: Tree,
    *,
    scanouts: int = 1,
    size: Size = DEFAULT_SIZE,
    driver: str = "",
    profile: str = "",
    blob_alignment: bool = True,
    beside: Beside = _nothing,
    **options: Any,
) -> Iterator[GpuGuest]:
    """Boot a guest with a GPU of this process.  `options` are those of `Guest`.

    `beside` runs from before QEMU starts until it has ended.  `driver` is the manifest of the
    host's driver that it is to use, if not the best; `profile`, the host profile;
    `blob_alignment`, whether it is told of the host's pages.
    """
    with exchange(tree) as place:
        guest = Guest(place, **options)
        gpu_options = GpuOptions(
            scanouts=scanouts,
            size=size,
            worker={"driver": driver or None, "profile": profile or None},
            blob_alignment=blob_alignment,
        )
        with (
            VhostUserGpu(guest.gpu_socket, gpu_options, _unexpected) as gpu,
            beside(guest, gpu),
            guest,
        ):
            yield GpuGuest(guest, gpu)
            check_workers(os.getpid())


def _unexpected() -> None:
    os.abort()
