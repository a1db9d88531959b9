"""The archive that guests boot from has the modules that their kernel has not in itself."""

from __future__ import annotations

from pathlib import Path

from initramfs import Initramfs, Tree


def test_what_is_built_in_is_no_module(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules/7.0-16k"
    modules.mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/drivers/acpi/button.ko\n")
    (modules / "hid-generic.ko").write_bytes(b"depends=hid_core\0")
    (modules / "hid-core.ko").write_bytes(b"depends=button\0")
    archive = Initramfs(Tree(tmp_path))
    for name in ("button", "hid-generic"):
        archive.add_module(name)
    assert archive.modules == ["hid-core", "hid-generic"]


def test_a_kernel_lies_where_its_release_has_it(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/modules/6.12-16k").mkdir(parents=True)
    assert Tree(tmp_path).kernel == tmp_path / "boot/vmlinuz-6.12-16k"
    modules = tmp_path / "usr/lib/modules/7.3-16k"
    modules.mkdir()
    (modules / "vmlinuz").touch()
    assert Tree(tmp_path).kernel == modules / "vmlinuz"
