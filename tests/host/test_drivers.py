"""Probing and choosing drivers: the real lavapipe, and drivers that crash, hang or are missing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hesper.errors import NoDriverError
from hesper.host import probe
from hesper.host.drivers import Device, Driver, choose_driver, find_drivers
from hesper.host.loader import MOLTENVK
from hesper.host.probe import probe_drivers
from hesper.host.seen import MemorySeen

SYSTEM = Path("/usr/share/vulkan/icd.d")


@pytest.fixture(autouse=True)
def every_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says, look at all drivers of this machine."""
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"):
        monkeypatch.delenv(name, raising=False)


def system_manifest(pattern: str) -> Path:
    """A manifest of this machine; scripts/test installs it."""
    return next(iter(sorted(SYSTEM.glob(pattern))))


@pytest.fixture
def lavapipe() -> Path:
    return system_manifest("lvp_icd*.json")


def build_driver(folder: Path, name: str, code: str) -> Path:
    """Compile a driver library with that code in it; returns its manifest."""
    source, library = folder / f"{name}.c", folder / f"lib{name}.so"
    source.write_text(code)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    manifest = folder / f"{name}_icd.json"
    icd = {"library_path": str(library), "api_version": "1.3.0"}
    manifest.write_text(json.dumps({"file_format_version": "1.0.1", "ICD": icd}))
    return manifest


def test_lavapipe_is_found_and_said_to_be_software(lavapipe: Path) -> None:
    driver = choose_driver("lavapipe")
    assert driver.manifest == str(lavapipe)
    assert driver.devices[0].type == "cpu"
    assert driver.devices[0].name.startswith("llvmpipe")
    assert driver.devices[0].driver_name == "llvmpipe"
    assert driver.devices[0].imports_host_memory
    assert driver.is_software
    assert "no GPU is used" in driver.notice


@pytest.mark.parametrize(("library", "is_moltenvk"), [("MoltenVK", True), ("vulkan_lvp", False)])
def test_moltenvk_is_told_how_to_be(tmp_path: Path, library: str, is_moltenvk: bool) -> None:
    """Unless the user has told it."""
    manifest = tmp_path / "some_icd.json"
    (tmp_path / f"lib{library}.dylib").touch()
    icd = {"library_path": f"./lib{library}.dylib", "api_version": "1.4.0"}
    manifest.write_text(json.dumps({"file_format_version": "1.0.1", "ICD": icd}))
    (driver,) = find_drivers(
        {"VK_DRIVER_FILES": str(manifest), "MVK_CONFIG_LOG_LEVEL": "4"}
    ).drivers
    told = {name: value for name, value in driver.environment.items() if name.startswith("MVK_")}
    expected = {**MOLTENVK}
    del expected["MVK_CONFIG_LOG_LEVEL"]
    assert told == (expected if is_moltenvk else {})


def test_a_manifest_may_be_named(lavapipe: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine.json"
    shutil.copy(lavapipe, elsewhere)
    driver = choose_driver(str(elsewhere))
    assert driver.environment["VK_DRIVER_FILES"] == str(elsewhere)
    assert driver.devices


def test_a_name_may_be_what_the_driver_calls_itself() -> None:
    driver = choose_driver("LLVMpipe")
    assert driver.name == "lvp"


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(NoDriverError, match=r"no driver answers to 'voodoo'; installed: .*lvp"):
        choose_driver("voodoo")


def test_venus_is_refused() -> None:
    with pytest.raises(NoDriverError, match="cannot serve guests: Venus is the guest's side"):
        choose_driver("virtio")
    manifest = str(system_manifest("virtio_icd*.json"))
    with pytest.raises(NoDriverError, match="no Vulkan driver can be used"):
        choose_driver(environ={"VK_DRIVER_FILES": manifest})


@pytest.mark.slow
def test_broken_drivers_do_not_take_us_down(
    lavapipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = "#include <unistd.h>\n__attribute__((constructor)) void f(void) { pause(); }"
    crashing = "#include <stdlib.h>\n__attribute__((constructor)) void f(void) { abort(); }"
    manifests = [
        build_driver(tmp_path, "crashing", crashing),
        build_driver(tmp_path, "empty", "int nothing;"),
        lavapipe,
        build_driver(tmp_path, "hanging", hanging),
    ]
    environ = {"VK_DRIVER_FILES": ":".join(map(str, manifests))}
    found = find_drivers(environ)
    for seconds in (5, 20, 80):  # where much else runs, a driver that works may take longer
        monkeypatch.setattr(probe, "PROBE_SECONDS", float(seconds))
        problems = [driver.problem for driver in probe_drivers(found.drivers, environ)]
        if not problems[2]:
            break
    assert problems[0] == "crashed with signal 6"
    assert "finds no device" in problems[1]
    assert problems[2] == ""
    assert problems[3] == f"did not answer within {seconds} s"
    monkeypatch.setattr(probe, "PROBE_SECONDS", 2.0 * seconds)
    assert choose_driver(environ=environ).name == "lvp"


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "gone_icd.json"
    icd = {"library_path": "libgone.so", "api_version": "1.3.0"}
    manifest.write_text(json.dumps({"ICD": icd}))
    with pytest.raises(NoDriverError, match=r"libgone\.so: cannot open shared object"):
        choose_driver(str(manifest))
    with pytest.raises(NoDriverError, match=r"no Vulkan driver can be used[^$]*libgone\.so"):
        choose_driver(environ={"VK_DRIVER_FILES": str(manifest)})


def device(kind: str, driver_id: int = 0) -> Device:
    memory = MemorySeen(imported=1, buffers=1)
    return Device(kind, kind, "1.3.0", driver_id, kind, "", False, True, memory=memory)


def test_the_best_gpu_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offered = {
        "a": (device("cpu"),),
        "b": (device("integrated"),),
        "c": (device("discrete", driver_id=22),),
        "d": (device("virtual"), device("cpu")),
        "e": (),
    }
    for name in offered:
        icd = {"library_path": "lib.so", "api_version": "1.3.0"}
        (tmp_path / f"{name}_icd.json").write_text(json.dumps({"ICD": icd}))

    def probed(drivers: list[Driver], _: object) -> list[Driver]:
        from hesper.host.drivers import sort_devices

        return [sort_devices(driver, offered[driver.name]) for driver in drivers]

    monkeypatch.setattr(probe, "probe_drivers", probed)
    environ = {"VK_DRIVER_FILES": str(tmp_path)}
    order = []
    for _ in range(3):
        driver = choose_driver(environ=environ)
        order.append(driver.name)
        (tmp_path / f"{driver.name}_icd.json").unlink()
    assert order == ["b", "d", "a"]
    with pytest.raises(NoDriverError):
        choose_driver(environ=environ)
