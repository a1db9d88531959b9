"""Windows that show scanouts and send input to the guest."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import glfw
import numpy as np

from hesper.display.frame import Capture, Picture
from hesper.display.geometry import Size
from hesper.display.input import Button, Held
from hesper.display.window.keys import CODE_OF_GLFW
from hesper.display.window.presenter import Presenter, fit
from hesper.errors import HesperError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hesper.display.scanout import Cursor, Scanout

SETTLE_SECONDS = 0.3
"""A window that has kept its size so long is not being dragged, and the guest is told."""
IDLE_SECONDS = 0.5
MAX_WHEEL_STEPS = 8
"""Wheel steps that one scroll event may bring."""

_BUTTONS = {
    glfw.MOUSE_BUTTON_LEFT: Button.LEFT,
    glfw.MOUSE_BUTTON_MIDDLE: Button.MIDDLE,
    glfw.MOUSE_BUTTON_RIGHT: Button.RIGHT,
    glfw.MOUSE_BUTTON_4: Button.SIDE,
    glfw.MOUSE_BUTTON_5: Button.EXTRA,
}


class WindowError(HesperError):
    """There is no screen, or no GPU that can draw on it."""


class ScanoutWindow:
    """One scanout in one window."""

    def __init__(self, scanout: Scanout) -> None:
        """Open it.  Raises `WindowError` when that cannot be."""
        self._scanout = scanout
        size = scanout.surface.size if scanout.surface is not None else scanout.wanted
        glfw.window_hint(glfw.CLIENT_API, glfw.NO_API)
        title = f"Hesper, screen {scanout.index + 1}"
        self._window = glfw.create_window(*size, title, None, None)
        if not self._window:
            raise WindowError("no window: is there a screen (DISPLAY, WAYLAND_DISPLAY)?")
        try:
            self._presenter = Presenter(self._window)
        except Exception as error:
            glfw.destroy_window(self._window)
            raise WindowError(f"no GPU can draw in a window here: {error}") from error
        self._news = threading.Event()
        self._held = Held()
        self._scroll = [0.0, 0.0]
        self._picture_size = size
        self._resized_at: float | None = None
        self._exposed = True
        self._cursor: Any = None
        glfw.set_key_callback(self._window, self._on_key)
        glfw.set_cursor_pos_callback(self._window, self._on_move)
        glfw.set_mouse_button_callback(self._window, self._on_button)
        glfw.set_scroll_callback(self._window, self._on_scroll)
        glfw.set_window_focus_callback(self._window, self._on_focus)
        glfw.set_framebuffer_size_callback(self._window, self._on_resize)
        glfw.set_window_refresh_callback(self._window, self._on_refresh)
        self._capture = Capture(scanout, self._wake)

    @property
    def closed(self) -> bool:
        """Whether somebody has closed it."""
        return bool(glfw.window_should_close(self._window))

    def step(self) -> None:
        """Show what is new, and tell the guest of a new size."""
        if self._news.is_set():
            self._news.clear()
            picture = self._capture.take()
            self._picture_size = picture.frame.size
            self._presenter.upload(picture)
            self._exposed |= bool(picture.changed)
            if picture.cursor_changed:
                self._set_cursor(picture)
        size = Size(*glfw.get_framebuffer_size(self._window))
        # A minimised window has no pixels to draw on.
        if self._exposed and size.width and size.height:
            self._exposed = False
            self._presenter.draw(size)
        if self._resized_at is not None and time.monotonic() >= self._resized_at + SETTLE_SECONDS:
            self._resized_at = None
            if size.width and size.height:
                self._scanout.request_size(size)

    def close(self) -> None:
        """Take it off the screen."""
        self._capture.close()
        self._scanout.send_input(self._held.release())
        glfw.destroy_window(self._window)

    def _wake(self) -> None:
        self._news.set()
        glfw.post_empty_event()

    def _set_cursor(self, picture: Picture) -> None:
        old = self._cursor
        self._cursor = _make_cursor(picture.cursor) if picture.cursor is not None else None
        glfw.set_cursor(self._window, self._cursor)
        # Without a cursor of its own the guest draws one, or wants none.
        mode = glfw.CURSOR_NORMAL if self._cursor is not None else glfw.CURSOR_HIDDEN
        glfw.set_input_mode(self._window, glfw.CURSOR, mode)
        if old is not None:
            glfw.destroy_cursor(old)

    def _on_key(self, _window: Any, key: int, _scancode: int, action: int, _mods: int) -> None:
        code = CODE_OF_GLFW.get(key)
        if code is not None and action != glfw.REPEAT:
            self._scanout.send_input(self._held.key(code, action == glfw.PRESS))

    def _on_move(self, window: Any, x: float, y: float) -> None:
        # The position counts in screen coordinates, which are pixels only without scaling.
        size = Size(*glfw.get_window_size(window))
        if not (size.width and size.height):
            return
        where = fit(self._picture_size, size)
        width, height = self._picture_size
        left = int((x - where.x) * width / where.width)
        top = int((y - where.y) * height / where.height)
        self._scanout.send_input(self._held.move(left, top, width, height))

    def _on_button(self, _window: Any, button: int, action: int, _mods: int) -> None:
        known = _BUTTONS.get(button)
        if known is not None:
            self._scanout.send_input(self._held.button(known, action == glfw.PRESS))

    def _on_scroll(self, _window: Any, x: float, y: float) -> None:
        self._scroll[0] += x
        self._scroll[1] += y
        self._scroll_steps(0, Button.WHEEL_RIGHT, Button.WHEEL_LEFT)
        self._scroll_steps(1, Button.WHEEL_UP, Button.WHEEL_DOWN)

    def _scroll_steps(self, axis: int, forward: Button, backward: Button) -> None:
        steps = int(self._scroll[axis])
        self._scroll[axis] -= steps
        button = forward if steps > 0 else backward
        for _ in range(min(abs(steps), MAX_WHEEL_STEPS)):
            events = self._held.button(button, True) + self._held.button(button, False)
            self._scanout.send_input(events)

    def _on_focus(self, _window: Any, focused: int) -> None:
        if not focused:
            self._scanout.send_input(self._held.release())

    def _on_resize(self, _window: Any, _width: int, _height: int) -> None:
        self._resized_at = time.monotonic()
        self._exposed = True

    def _on_refresh(self, _window: Any) -> None:
        self._exposed = True


def run_windows(scanouts: Iterable[Scanout], stop: threading.Event) -> None:
    """Show scanouts until all windows are closed or `stop` is set.

    On the process's main thread, which is the only one that systems allow windows on; after
    setting `stop`, `glfw.post_empty_event` saves half a second.  Raises `WindowError` when there
    is no screen.
    """
    if not glfw.init():
        raise WindowError("no windows here: is there a screen (DISPLAY, WAYLAND_DISPLAY)?")
    windows: list[ScanoutWindow] = []
    try:
        for scanout in scanouts:
            windows.append(ScanoutWindow(scanout))  # noqa: PERF401  closed below if one fails
        while windows and not stop.is_set():
            for window in windows:
                window.step()
            glfw.wait_events_timeout(IDLE_SECONDS)
            for window in [window for window in windows if window.closed]:
                windows.remove(window)
                window.close()
    finally:
        for window in windows:
            window.close()
        glfw.terminate()


def _make_cursor(cursor: Cursor) -> Any:
    height, width = cursor.pixels.shape
    straight = np.ascontiguousarray(cursor.straight()).view(np.uint8).reshape(height, width, 4)
    image: Any = (width, height, straight[..., [2, 1, 0, 3]].tolist())
    return glfw.create_cursor(image, cursor.hot_x, cursor.hot_y)
