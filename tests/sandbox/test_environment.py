"""Which variables workers find around them."""

from __future__ import annotations

import pytest

from hesper.sandbox.environment import scrubbed


@pytest.mark.parametrize(
    "name",
    [
        *("HOME", "PATH", "LANG", "LC_ALL", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"),
        *("VK_DRIVER_FILES", "VK_ADD_LAYER_PATH", "VK_INSTANCE_LAYERS", "VK_LOADER_DEBUG"),
        *("MESA_SHADER_CACHE_DIR", "RADV_DEBUG", "LP_NUM_THREADS", "ANV_DEBUG", "MVK_CONFIG_DEBUG"),
        *("__GL_SYNC_TO_VBLANK", "__EGL_VENDOR_LIBRARY_FILENAMES", "NVIDIA_VISIBLE_DEVICES"),
        *("HESPER_PAGE_SIZE", "PYTHONPATH", "ASAN_OPTIONS", "MALLOC_ARENA_MAX"),
    ],
)
def test_what_drivers_read_is_kept(name: str) -> None:
    assert scrubbed({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        *("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "AWS_SECRET_ACCESS_KEY"),
        *("GITHUB_TOKEN", "NVIDIA_API_KEY", "HESPER_VNC_PASSWORD", "MESA_TOKEN", "VK_ACCESS_TOKEN"),
        *("OLDPWD", "HTTP_PROXY", "MY_HOME", "HOMES", "mesa_debug"),
    ],
)
def test_everything_else_stays_out(name: str) -> None:
    assert scrubbed({name: "x"}) == {}
