"""Manifests: search order, overrides, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hesper.host.drivers import find_drivers
from hesper.host.manifests import ManifestError, manifest_paths, read_manifest, search_folders


def write(path: Path, library: str = "libdriver.so", **more: object) -> Path:
    """Write a manifest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    icd = {"library_path": library, "api_version": "1.4.300", **more}
    path.write_text(json.dumps({"file_format_version": "1.0.1", "ICD": icd}))
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose folders all lie in `tmp_path`."""
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CONFIG_DIRS": f"{tmp_path}/xdg1:{tmp_path}/xdg2",
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_DATA_DIRS": f"{tmp_path}/share1:{tmp_path}/share2",
    }


def test_folders_in_the_loaders_order(environ: dict[str, str], tmp_path: Path) -> None:
    environ["VULKAN_SDK"] = str(tmp_path / "sdk")
    (tmp_path / "home/VulkanSDK/1.3.9.0").mkdir(parents=True)
    (tmp_path / "home/VulkanSDK/1.3.10.0").mkdir()
    folders = [str(folder) for folder in search_folders(environ)]
    expected = [
        f"{tmp_path}/config",
        f"{tmp_path}/xdg1",
        f"{tmp_path}/xdg2",
        "/usr/local/etc",
        "/etc",
        f"{tmp_path}/data",
        f"{tmp_path}/share1",
        f"{tmp_path}/share2",
        f"{tmp_path}/home/.local/share",
        "/usr/local/share",
        "/usr/share",
        "/opt/homebrew/share",
        "/opt/homebrew/etc",
        f"{tmp_path}/sdk/share",
        f"{tmp_path}/sdk/macOS/share",
        f"{tmp_path}/sdk/etc",
        f"{tmp_path}/home/VulkanSDK/1.3.10.0/share",
        f"{tmp_path}/home/VulkanSDK/1.3.10.0/macOS/share",
        f"{tmp_path}/home/VulkanSDK/1.3.10.0/etc",
        f"{tmp_path}/home/VulkanSDK/1.3.9.0/share",
    ]
    assert folders[: len(expected)] == [f"{prefix}/vulkan/icd.d" for prefix in expected]


def test_defaults_without_xdg_variables() -> None:
    folders = [str(folder) for folder in search_folders({"HOME": "/home/me"})]
    assert folders[:7] == [
        "/home/me/.config/vulkan/icd.d",
        "/etc/xdg/vulkan/icd.d",
        "/usr/local/etc/vulkan/icd.d",
        "/etc/vulkan/icd.d",
        "/home/me/.local/share/vulkan/icd.d",
        "/usr/local/share/vulkan/icd.d",
        "/usr/share/vulkan/icd.d",
    ]
    assert len(folders) == len(set(folders))


def test_driver_files_replace_the_search(environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "share1/vulkan/icd.d/usual.json")
    one = write(tmp_path / "one.json")
    two = write(tmp_path / "folder/two.json")
    (tmp_path / "folder/readme.txt").write_text("not a manifest")
    environ["VK_DRIVER_FILES"] = f"{one}:{tmp_path}/folder"
    environ["VK_ADD_DRIVER_FILES"] = str(tmp_path / "share1/vulkan/icd.d/usual.json")
    assert manifest_paths(environ) == [one, two]
    environ["VK_ICD_FILENAMES"] = environ.pop("VK_DRIVER_FILES")
    assert manifest_paths(environ) == [one, two]


def test_added_driver_files_come_first(environ: dict[str, str], tmp_path: Path) -> None:
    usual = write(tmp_path / "share1/vulkan/icd.d/usual.json")
    added = write(tmp_path / "added.json")
    environ["VK_ADD_DRIVER_FILES"] = str(added)
    found = manifest_paths(environ)
    assert found[0] == added
    assert usual in found


def test_a_file_is_found_once(environ: dict[str, str], tmp_path: Path) -> None:
    usual = write(tmp_path / "share1/vulkan/icd.d/usual.json")
    (tmp_path / "share2/vulkan").mkdir(parents=True)
    (tmp_path / "share2/vulkan/icd.d").symlink_to(usual.parent)
    assert [path.name for path in manifest_paths(environ)].count("usual.json") == 1


def test_relative_library_is_relative_to_the_manifest(tmp_path: Path) -> None:
    library = tmp_path / "lib/libdriver.dylib"
    library.parent.mkdir()
    library.touch()
    path = write(
        tmp_path / "share/icd.d/driver.json",
        "../../lib/libdriver.dylib",
        is_portability_driver=True,
    )
    manifest = read_manifest(path)
    assert manifest.library_path == str(library)
    assert manifest.is_portability
    assert manifest.api_version == "1.4.300"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "no valid JSON"),
        ("[1]", 'no "ICD" object'),
        ('{"ICD": {"api_version": "1.3"}}', '"library_path" or "api_version" is missing'),
        ('{"ICD": {"library_path": "", "api_version": "1.3"}}', "is missing"),
        ('{"ICD": {"library_path": "./gone.so", "api_version": "1.3"}}', "library is missing: "),
        (
            '{"ICD": {"library_path": "a.so", "api_version": "1.3", "library_arch": "32"}}',
            "32-bit programs",
        ),
    ],
)
def test_broken_manifests_are_reported(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ManifestError, match=reason) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    found = find_drivers({"VK_DRIVER_FILES": str(path)})
    assert found.drivers == ()
    assert len(found.broken) == 1
    assert reason in found.broken[0]


def test_a_named_manifest_that_is_missing_is_reported(tmp_path: Path) -> None:
    found = find_drivers({"VK_DRIVER_FILES": str(tmp_path / "gone.json")})
    assert found.broken == (f"{tmp_path}/gone.json: no such file",)


def test_names_are_short_and_unique(tmp_path: Path) -> None:
    write(tmp_path / "a/lvp_icd.x86_64.json")
    write(tmp_path / "b/lvp_icd.json")
    write(tmp_path / "b/MoltenVK_icd.json")
    found = find_drivers({"VK_DRIVER_FILES": f"{tmp_path}/a:{tmp_path}/b"})
    assert [driver.name for driver in found.drivers] == ["lvp", "moltenvk", "lvp-2"]


def test_the_environment_shows_the_loader_one_driver(tmp_path: Path) -> None:
    path = write(tmp_path / "driver.json")
    environ = {"VK_DRIVER_FILES": str(path)}
    (driver,) = find_drivers(environ).drivers
    assert driver.environment["VK_DRIVER_FILES"] == str(path)
    assert driver.environment["VK_LOADER_LAYERS_DISABLE"] == "~implicit~"
    (driver,) = find_drivers(environ | {"VK_LOADER_LAYERS_DISABLE": ""}).drivers
    assert "VK_LOADER_LAYERS_DISABLE" not in driver.environment
