"""An image keeps its Venus driver, or gets this machine's if that works there, or hears why not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from libraries import DRIVER, LOADER, add_driver, compile_glibc, compile_library, make_root

from hesper.containers.driver_set import DRIVER_FOLDER, DriverSet
from hesper.containers.injection import HOST_FOLDER, InjectionError, plan
from hesper.containers.rootfs import Root


def planned_links(root: Path, driver_set: DriverSet) -> set[str]:
    links = plan(Root(root, {}), driver_set).links
    for path, target in links.items():
        assert target == f"{HOST_FOLDER}/{Path(path).name}"
    return set(links)


def refusal(root: Path, driver_set: DriverSet) -> str:
    with pytest.raises(InjectionError) as caught:
        plan(Root(root, {}), driver_set)
    says = str(caught.value)
    assert says.startswith("the image has no Venus driver that can be used, and this machine's ")
    assert says.endswith("mesa-vulkan-virtio (Alpine)")
    return says.partition(" cannot work in it: ")[2].partition("; install Mesa")[0]


def test_a_manifest_without_end_is_none(root: Path, driver_set: DriverSet) -> None:
    """To make sense of one takes thirty times its size, outside of the container."""
    manifest = add_driver(root, "24.0.9")
    text = json.loads(manifest.read_text()) | {"more": [{}] * 500_000}
    manifest.write_text(json.dumps(text))
    assert planned_links(root, driver_set)


def test_an_image_keeps_its_driver(root: Path, driver_set: DriverSet) -> None:
    add_driver(root, "24.0.9", "virtio_icd.x86_64.json")
    planned = plan(Root(root, {}), driver_set)
    assert planned.links == {}
    assert planned.manifest["ICD"] == {"library_path": DRIVER, "api_version": "1.3.290"}
    assert planned.summary == (
        "has a Venus driver, /usr/share/vulkan/icd.d/virtio_icd.x86_64.json, and keeps it"
    )


def test_a_path_in_its_manifest_is_meant_from_there(root: Path, driver_set: DriverSet) -> None:
    manifest = add_driver(root, "25.1.0")
    icd = {"library_path": f"../../../../lib64/{DRIVER}", "api_version": "1.4.0"}
    manifest.write_text(json.dumps({"ICD": icd}))
    planned = plan(Root(root, {}), driver_set)
    assert planned.manifest["ICD"]["library_path"] == (
        f"/usr/share/vulkan/icd.d/../../../../lib64/{DRIVER}"
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"ICD": 1}',
        '{"ICD": {"library_path": "libvulkan_virtio.so"}}',
        '{"ICD": {"library_path": "libother.so", "api_version": "1.3"}}',
        '{"ICD": {"library_path": "../../../../../../../etc/passwd", "api_version": "1.3"}}',
        "[" * 100_000,
    ],
)
def test_a_driver_that_is_none_is_replaced(root: Path, driver_set: DriverSet, content: str) -> None:
    add_driver(root, "25.0.0").write_text(content)
    planned = plan(Root(root, {}), driver_set)
    assert planned.manifest["ICD"]["library_path"] == f"{HOST_FOLDER}/{DRIVER}"


def test_a_driver_that_is_too_old_is_replaced(root: Path, driver_set: DriverSet) -> None:
    add_driver(root, "23.3.6")
    planned = plan(Root(root, {}), driver_set)
    assert planned.manifest == {
        "file_format_version": "1.0.0",
        "ICD": {"library_path": f"{HOST_FOLDER}/{DRIVER}", "api_version": "1.4.305"},
    }


def test_an_image_gets_what_it_lacks(root: Path, driver_set: DriverSet) -> None:
    window, protocol = f"{DRIVER_FOLDER}/libwindow.so.1", f"{DRIVER_FOLDER}/libprotocol.so.1"
    loader = f"/lib64/{LOADER}"
    assert planned_links(root, driver_set) == {window, protocol, loader}
    says = plan(Root(root, {}), driver_set).summary
    assert says == (
        "gets this machine's Venus driver, with libprotocol.so.1, libvulkan.so.1, libwindow.so.1"
    )
    for name in (LOADER, "libwindow.so.1"):
        shutil.copy(Path(driver_set.folder, name), root / "lib64")
    assert planned_links(root, driver_set) == {protocol}
    # One that lacks what is called: libwindow wants protocol_new.
    compile_library(root / "lib64/libprotocol.so.1", "int protocol_old(void){return 1;}")
    assert planned_links(root, driver_set) == {protocol}
    # A newer one has what the older ones had.
    compile_library(
        root / "lib64/libprotocol.so.1",
        "int protocol_new(void){return 1;} int protocol_newest(void){return 1;}",
    )
    assert planned_links(root, driver_set) == set()
    assert plan(Root(root, {}), driver_set).summary == "gets this machine's Venus driver"


def test_the_loader_is_put_beside_the_c_library(tmp_path: Path, driver_set: DriverSet) -> None:
    """Where programs look whatever LD_LIBRARY_PATH they were given."""
    root = make_root(tmp_path / "root")
    compile_glibc(root / "opt/libc.so.6")
    planned = plan(Root(root, {"LD_LIBRARY_PATH": "/opt"}), driver_set)
    assert f"/lib64/{LOADER}" in planned.links


def test_a_glibc_that_is_too_old_is_refused(tmp_path: Path, driver_set: DriverSet) -> None:
    root = make_root(tmp_path / "root", newest="GLIBC_2.2.5")
    assert refusal(root, driver_set) == (
        "its glibc is too old (up to GLIBC_2.2.5): libvulkan_virtio.so needs GLIBC_2.34"
    )
    add_driver(root, "24.1.0")
    assert plan(Root(root, {}), driver_set).links == {}, "its own driver is not held against that"


def test_an_image_with_musl_is_refused(root: Path, driver_set: DriverSet) -> None:
    (root / "lib64/libc.so.6").unlink()
    assert refusal(root, driver_set) == "it has no C library, and the driver needs glibc"
    (root / "lib").mkdir()
    (root / "lib/ld-musl-x86_64.so.1").write_text("")
    assert refusal(root, driver_set) == "its C library is musl, and the driver needs glibc"
    compile_glibc(root / "lib64/libc.so.6")
    assert planned_links(root, driver_set), "musl may lie beside glibc"


def test_an_image_for_another_machine_is_refused(root: Path, driver_set: DriverSet) -> None:
    for name in ("bin/sh", "lib64/libc.so.6"):
        data = bytearray((root / name).read_bytes())
        data[18:20] = b"\x15\0"
        (root / name).write_bytes(data)
    assert refusal(root, driver_set).startswith("it is for ppc64, the driver for ")


def test_an_empty_image_is_refused(tmp_path: Path, driver_set: DriverSet) -> None:
    (tmp_path / "root").mkdir()
    assert refusal(tmp_path / "root", driver_set) == (
        "it has neither a shell nor a dynamic linker that Hesper knows"
    )


def test_where_nobody_has_a_loader_it_is_refused(root: Path, driver_set: DriverSet) -> None:
    without = dataclasses.replace(driver_set, loader="")
    assert refusal(root, without) == (
        "it has no Vulkan loader (libvulkan.so.1), nor has this machine"
    )
    shutil.copy(Path(driver_set.folder, LOADER), root / "lib64")
    assert f"/lib64/{LOADER}" not in planned_links(root, without)
