"""The choice between drivers: by what they can do, and with the reason."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hesper.cli import drivers as drivers_command
from hesper.host import manifests
from hesper.host.diagnosis import diagnose
from hesper.host.drivers import Device, Driver, choose_driver, find_drivers
from hesper.host.ranking import CRITERIA, best_driver, obstacle, why_lost
from hesper.host.seen import MemorySeen

HERE = Path(__file__).parent
SYSTEM = Path("/usr/share/vulkan/icd.d")

GPU = Device(
    name="GPU",
    type="discrete",
    api_version="1.4.300",
    driver_id=0,
    driver_name="",
    driver_info="",
    is_portability=False,
    imports_host_memory=True,
    conformance="1.4.0.0",
    memory=MemorySeen(imported=1, buffers=1, linear_images=1, linear_attachments=True),
    features=("geometryShader", "nullDescriptor"),
)
NO_MEMORY = replace(GPU, imports_host_memory=False, memory=MemorySeen())


def driver(name: str, device: Device) -> Driver:
    return Driver(name, f"/{name}.json", f"lib{name}.so", "1.3.0", False, "", devices=(device,))


@pytest.mark.parametrize(
    ("lesser", "reason"),
    [
        (NO_MEMORY, "lacks VK_EXT_external_memory_host"),
        (replace(GPU, memory=MemorySeen()), "takes no pointers to shared memory"),
        (replace(GPU, memory=None), "lets no VkDevice be made"),
        (replace(GPU, memory=MemorySeen(buffers=1)), "shares pictures by a copy only; best shares"),
        (replace(GPU, api_version="1.0.300"), "has Vulkan 1.0.300, 1.1 is needed; best can serve"),
        (replace(GPU, type="integrated"), "is a GPU (integrated); best is a GPU (discrete)"),
        (replace(GPU, type="cpu"), "draws on the processor; best is a GPU (discrete)"),
        (replace(GPU, is_portability=True), "leaves out parts of Vulkan"),
        (replace(GPU, features=("geometryShader",)), "what programs want: geometryShader; best"),
        (replace(GPU, api_version="1.3.400"), "has Vulkan 1.3.400; best has Vulkan 1.4.300"),
        (replace(GPU, conformance=""), "is not conformant; best passed the conformance tests"),
    ],
)
def test_each_criterion_decides_and_is_named(lesser: Device, reason: str) -> None:
    best, other = driver("best", GPU), driver("other", lesser)
    assert best_driver([other, best]) is best
    assert best_driver([best, other]) is best
    assert reason in why_lost(other, best)
    assert why_lost(best, best) == ""


def test_a_gpu_that_cannot_serve_loses_to_a_processor_that_can() -> None:
    useless = driver("useless", NO_MEMORY)
    processor = driver("lvp", replace(GPU, type="cpu"))
    assert best_driver([useless, processor]) is processor
    assert useless.notice.startswith("no guest can be served: GPU lacks VK_EXT_external_memory")


def test_among_equals_the_first_wins() -> None:
    first, second = driver("first", GPU), driver("second", GPU)
    assert best_driver([first, second]) is first
    assert why_lost(second, first) == "is no better than first, which comes first"


def test_no_criterion_knows_a_name() -> None:
    renamed = replace(GPU, name="x", driver_name="y", driver_id=9)
    assert all(each.value(GPU) == each.value(renamed) for each in CRITERIA)


@pytest.fixture
def homebrew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Lays out what Homebrew installs on Apple Silicon: molten-vk and mesa, both with a driver.

    molten-vk keeps its manifest in etc, which is a copy of what lies in the Cellar, with a library
    path relative to there; mesa's lie in share, links into the Cellar, with an absolute path.
    """
    lavapipe = next(iter(sorted(SYSTEM.glob("lvp_icd*.json"))))
    library = find_drivers({"VK_DRIVER_FILES": str(lavapipe)}).drivers[0].library_path

    def build(path: Path, name: str, *defines: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-shared", "-fPIC", "-w", "-o", str(path), str(HERE / "apple_driver.c")]
        command += [f'-DNAME="{name}"', f'-DLAVAPIPE="{library}"', *defines, "-ldl"]
        subprocess.run(command, check=True)

    def manifest(path: Path, library_path: str, *, portability: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        icd = {"library_path": library_path, "api_version": "1.4.0"}
        if portability:
            icd["is_portability_driver"] = portability  # type: ignore[assignment]
        path.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": icd}))

    def homebrew(kosmickrisp: tuple[str, ...] = ()) -> dict[str, str]:
        root = tmp_path / "opt/homebrew"
        monkeypatch.setattr(manifests, "EXTRA_PREFIXES", (f"{root}/share", f"{root}/etc"))
        molten = root / "Cellar/molten-vk/1.4.0"
        build(molten / "lib/libMoltenVK.dylib", "Apple M2 (Molten)", "-DSUBSET")
        for place in (molten / "etc", root / "etc"):
            file = place / "vulkan/icd.d/MoltenVK_icd.json"
            manifest(file, "../../../lib/libMoltenVK.dylib", portability=True)
        (root / "lib").mkdir()
        (root / "lib/libMoltenVK.dylib").symlink_to(molten / "lib/libMoltenVK.dylib")
        mesa = root / "Cellar/mesa/26.1.0"
        krisp = mesa / "lib/libvulkan_kosmickrisp.dylib"
        build(krisp, "Apple M2 (Krisp)", *kosmickrisp)
        found = mesa / "share/vulkan/icd.d/kosmickrisp_mesa_icd.aarch64.json"
        manifest(found, str(krisp), portability=False)
        shown = root / "share/vulkan/icd.d"
        shown.mkdir(parents=True)
        (shown / found.name).symlink_to(found)
        software = shown / "lvp_icd.aarch64.json"
        manifest(software, library, portability=False)
        return {"HOME": str(tmp_path)}

    monkeypatch.setattr(
        manifests,
        "search_folders",
        lambda _: [Path(prefix, "vulkan/icd.d") for prefix in manifests.EXTRA_PREFIXES],
    )
    return homebrew


@pytest.mark.programs
def test_of_a_macs_drivers_the_one_with_all_of_vulkan_is_taken(
    homebrew: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = homebrew()
    names = [each.name for each in find_drivers(environ).drivers]
    assert names == ["kosmickrisp_mesa", "lvp", "moltenvk"]
    chosen = choose_driver(environ=environ)
    assert (chosen.name, chosen.devices[0].name) == ("kosmickrisp_mesa", "Apple M2 (Krisp)")
    assert choose_driver("kosmickrisp", environ=environ).name == "kosmickrisp_mesa"
    lost = "leaves out parts of Vulkan (VK_KHR_portability_subset); kosmickrisp_mesa has all of"
    found = [finding.text for finding in diagnose(environ) if finding.topic == "other driver"]
    assert found[0].startswith("lvp: not chosen, it draws on the processor; kosmickrisp_mesa is a")
    assert found[1].startswith(f"moltenvk: not chosen, it {lost}")
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"):
        monkeypatch.delenv(name, raising=False)
    drivers_command.command(json=True)
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["drivers"]}
    assert listed["moltenvk"]["not_chosen"].startswith(lost)
    assert listed["kosmickrisp_mesa"]["not_chosen"] == ""
    assert "nullDescriptor" in listed["kosmickrisp_mesa"]["devices"][0]["features"]
    assert "nullDescriptor" not in listed["moltenvk"]["devices"][0]["features"]
    drivers_command.command(json=False)
    assert "not chosen: leaves out parts" in " ".join(capsys.readouterr().out.split())


@pytest.mark.programs
def test_one_that_cannot_serve_is_not_taken_however_complete_it_is(
    homebrew: Callable[..., dict[str, str]],
) -> None:
    chosen = choose_driver(environ=homebrew(("-DNO_HOST_MEMORY",)))
    assert chosen.name == "moltenvk"
    assert obstacle(chosen.devices[0]) == ""
