"""A virtual X screen, and the last picture a program has shown in its window."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

START_SECONDS = 120.0
_Z_PIXMAP = 2
_ALL_PLANES = 0xFFFFFFFF
_REDIRECT_AUTOMATIC = 0
_VIEWABLE = 2


class _XImage(ctypes.Structure):
    """The start of XImage (Xlib.h)."""

    _fields_ = [
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("xoffset", ctypes.c_int),
        ("format", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("byte_order", ctypes.c_int),
        ("bitmap_unit", ctypes.c_int),
        ("bitmap_bit_order", ctypes.c_int),
        ("bitmap_pad", ctypes.c_int),
        ("depth", ctypes.c_int),
        ("bytes_per_line", ctypes.c_int),
        ("bits_per_pixel", ctypes.c_int),
    ]


class _WindowAttributes(ctypes.Structure):
    """XWindowAttributes (Xlib.h)."""

    _fields_ = [
        ("x", ctypes.c_int),
        ("y", ctypes.c_int),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("border_width", ctypes.c_int),
        ("depth", ctypes.c_int),
        ("visual", ctypes.c_void_p),
        ("root", ctypes.c_ulong),
        ("class_", ctypes.c_int),
        ("bit_gravity", ctypes.c_int),
        ("win_gravity", ctypes.c_int),
        ("backing_store", ctypes.c_int),
        ("backing_planes", ctypes.c_ulong),
        ("backing_pixel", ctypes.c_ulong),
        ("save_under", ctypes.c_int),
        ("colormap", ctypes.c_ulong),
        ("map_installed", ctypes.c_int),
        ("map_state", ctypes.c_int),
        ("all_event_masks", ctypes.c_long),
        ("your_event_mask", ctypes.c_long),
        ("do_not_propagate_mask", ctypes.c_long),
        ("override_redirect", ctypes.c_int),
        ("screen", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Screen:
    """A running X server."""

    display: str

    def last_picture(
        self, start: Callable[[], subprocess.Popen[bytes]], seconds: float
    ) -> tuple[NDArray[np.uint8], int]:
        """Start a program and wait for its end; what its window showed last, and its exit status.

        The window's contents are kept in a pixmap of ours (Composite), so that they outlive the
        window.  Returns height x width x 3 bytes, blue first as X has them.
        """
        deadline = time.monotonic() + seconds
        with _connection(self.display) as (x11, composite, display):
            root = x11.XDefaultRootWindow(display)
            composite.XCompositeRedirectSubwindows(display, root, _REDIRECT_AUTOMATIC)
            x11.XSync(display, 0)
            process = start()
            try:
                window = _wait_for_window(x11, display, root, process, deadline)
                attributes = _WindowAttributes()
                x11.XGetWindowAttributes(display, window, ctypes.byref(attributes))
                pixmap = composite.XCompositeNameWindowPixmap(display, window)
                x11.XSync(display, 0)
                status = process.wait(max(1.0, deadline - time.monotonic()))
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            picture = _pixels(x11, display, pixmap, attributes.width, attributes.height)
        return picture, status


@contextlib.contextmanager
def virtual_screen(size: str = "1024x768x24") -> Iterator[Screen]:
    """An Xvfb of its own, on a display number that it picks."""
    read, write = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp", "-noreset"],
        pass_fds=[write],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as answer:
            number = answer.readline().strip()
        if not number:
            raise RuntimeError(f"Xvfb did not start (exit status {process.wait(10)})")
        yield Screen(f":{number}")
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def _connection(name: str) -> Iterator[tuple[Any, Any, ctypes.c_void_p]]:
    """A connection to the display: Xlib, XComposite, Display*."""
    x11 = ctypes.CDLL("libX11.so.6")
    composite = ctypes.CDLL("libXcomposite.so.1")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XDefaultRootWindow.restype = ctypes.c_ulong
    x11.XGetImage.restype = ctypes.POINTER(_XImage)
    composite.XCompositeNameWindowPixmap.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(name.encode()))
    if not display:
        raise RuntimeError(f"no X server on {name}")
    x11.XDefaultRootWindow.argtypes = [ctypes.c_void_p]
    composite.XCompositeRedirectSubwindows.argtypes = [
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_int,
    ]
    composite.XCompositeNameWindowPixmap.argtypes = [ctypes.c_void_p, ctypes.c_ulong]
    x11.XSync.argtypes = [ctypes.c_void_p, ctypes.c_int]
    x11.XGetWindowAttributes.argtypes = [
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.POINTER(_WindowAttributes),
    ]
    try:
        yield x11, composite, display
    finally:
        x11.XCloseDisplay(display)


def _wait_for_window(
    x11: Any, display: Any, root: int, process: subprocess.Popen[bytes], deadline: float
) -> int:
    """Id of the first window that is shown."""
    while time.monotonic() < deadline:
        for window in _children(x11, display, root):
            attributes = _WindowAttributes()
            x11.XGetWindowAttributes(display, window, ctypes.byref(attributes))
            if attributes.map_state == _VIEWABLE and attributes.width > 1:
                return window
        if process.poll() is not None:
            raise AssertionError(f"the program ended with {process.returncode}, without a window")
        time.sleep(0.002)
    raise AssertionError("no window was shown in time")


def _children(x11: Any, display: Any, root: int) -> list[int]:
    """Windows of the root window."""
    parent, top = ctypes.c_ulong(), ctypes.c_ulong()
    found, count = ctypes.POINTER(ctypes.c_ulong)(), ctypes.c_uint()
    x11.XQueryTree.argtypes = [ctypes.c_void_p, ctypes.c_ulong] + [ctypes.c_void_p] * 4
    x11.XQueryTree(
        display,
        root,
        ctypes.byref(top),
        ctypes.byref(parent),
        ctypes.byref(found),
        ctypes.byref(count),
    )
    windows = [found[index] for index in range(count.value)]
    if found:
        x11.XFree(found)
    return windows


def _pixels(x11: Any, display: Any, pixmap: int, width: int, height: int) -> NDArray[np.uint8]:
    """The colours of a pixmap of 32 bits a pixel."""
    x11.XGetImage.argtypes = [
        ctypes.c_void_p,
        ctypes.c_ulong,
        *[ctypes.c_int] * 2,
        *[ctypes.c_uint] * 2,
        ctypes.c_ulong,
        ctypes.c_int,
    ]
    image = x11.XGetImage(display, pixmap, 0, 0, width, height, _ALL_PLANES, _Z_PIXMAP)
    if not image:
        raise AssertionError("the window's picture is gone")
    stride = image.contents.bytes_per_line
    raw = ctypes.string_at(image.contents.data, stride * height)
    rows = np.frombuffer(raw, np.uint8).reshape(height, stride)[:, : width * 4]
    x11.XDestroyImage.argtypes = [ctypes.c_void_p]
    x11.XDestroyImage(image)
    return rows.reshape(height, width, 4)[:, :, :3].copy()
