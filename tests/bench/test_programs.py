"""Reading what other programs print."""

from __future__ import annotations

from pathlib import Path

from hesper.bench.suites.base import Options
from hesper.bench.suites.programs import BackendOps, LlamaBench, Vkmark

VKMARK = """
=======================================================
    vkmark 2025.01
=======================================================
    Vendor ID:      0x10005
    Device Name:    llvmpipe (LLVM 15.0.6, 256 bits)
=======================================================
[vertex] device-local=true:duration=0.5: FPS: 1419 FrameTime: 0.705 ms
[clear] duration=0.5: FPS: 10190 FrameTime: 0.098 ms
=======================================================
                                   vkmark Score: 3145
=======================================================
"""

LLAMA = """ggml_vulkan: Found 1 Vulkan devices: [
[
  {"n_prompt": 128, "n_gen": 0, "avg_ts": 718.5, "stddev_ts": 3.1},
  {"n_prompt": 0, "n_gen": 64, "avg_ts": 233.25, "stddev_ts": 1.0}
]
"""

OPERATIONS = (
    "Testing 2 devices\n\n"
    "Backend 1/2: Vulkan0\n"
    "  ADD(type=f32,ne=[4096,1,1,1],nr=[1,1,1,1],nf=1,perm1=0,src_overlap=0):"
    "               24570 runs -    54.38 us/run -       48 kB/run -"
    " \x1b[1;34m   0.84 GB/s\x1b[0m\n"
    "  MUL_MAT(type_a=q4_0,type_b=f32,m=4096,n=512,k=14336,bs=[1,1],nr=[1,1],per=[0,1,2,3],"
    "k_v=0,o=1,src_overlap=0,m_v=0,pad=0):        8 runs - 24603.42 us/run -"
    "  60.13 GFLOP/run - \x1b[1;34m  4.77 TFLOPS\x1b[0m\n"
    "  MUL_MAT(type_a=f32,type_b=f32,m=4096,n=1,k=14336,bs=[1,1]): not supported\n"
    "Backend 2/2: CPU\n  Skipping\n2/2 backends passed\n"
)


def test_vkmark() -> None:
    program = Vkmark("vkmark")
    assert program.read(VKMARK) == {"vertex": 1419.0, "clear": 10190.0}
    assert program.read("no device") == {}
    assert program.metric("clear").show(10190.0) == "10190 FPS"


def test_llama_bench(tmp_path: Path) -> None:
    program = LlamaBench("llama-bench", tmp_path / "model.gguf")
    assert program.read(LLAMA) == {"pp128": 718.5, "tg64": 233.25}
    assert program.read("error: no model") == {}


def test_backend_ops() -> None:
    program = BackendOps("test-backend-ops")
    assert program.read(OPERATIONS) == {"add": 54.38, "mul_q4": 24603.42}
    assert program.metric("mul_q4").title == "ggml MUL_MAT q4_0, 512 columns"


def test_large_operations_are_for_gpus() -> None:
    program = BackendOps("test-backend-ops")
    assert len(program.commands(Options(software=True))) == 1
    assert len(program.commands(Options(software=False))) > 1
