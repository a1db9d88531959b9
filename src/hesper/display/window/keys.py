"""From GLFW's keys to Linux's codes.

GLFW names a key by what it types on a US keyboard, wherever it lies on the one at hand; so does
`QCODE_OF`, and the guest's own layout does the rest.
"""

from __future__ import annotations

import glfw

from hesper.display.keys import CODE_OF_KEYSYM, QCODE_OF

_CODE_OF_QCODE = {name: code for code, name in QCODE_OF.items()}

_NAMED = {
    glfw.KEY_ESCAPE: "esc",
    glfw.KEY_ENTER: "ret",
    glfw.KEY_TAB: "tab",
    glfw.KEY_BACKSPACE: "backspace",
    glfw.KEY_INSERT: "insert",
    glfw.KEY_DELETE: "delete",
    glfw.KEY_RIGHT: "right",
    glfw.KEY_LEFT: "left",
    glfw.KEY_DOWN: "down",
    glfw.KEY_UP: "up",
    glfw.KEY_PAGE_UP: "pgup",
    glfw.KEY_PAGE_DOWN: "pgdn",
    glfw.KEY_HOME: "home",
    glfw.KEY_END: "end",
    glfw.KEY_CAPS_LOCK: "caps_lock",
    glfw.KEY_SCROLL_LOCK: "scroll_lock",
    glfw.KEY_NUM_LOCK: "num_lock",
    glfw.KEY_PRINT_SCREEN: "print",
    glfw.KEY_PAUSE: "pause",
    glfw.KEY_KP_DECIMAL: "kp_decimal",
    glfw.KEY_KP_DIVIDE: "kp_divide",
    glfw.KEY_KP_MULTIPLY: "kp_multiply",
    glfw.KEY_KP_SUBTRACT: "kp_subtract",
    glfw.KEY_KP_ADD: "kp_add",
    glfw.KEY_KP_ENTER: "kp_enter",
    glfw.KEY_KP_EQUAL: "kp_equals",
    glfw.KEY_LEFT_SHIFT: "shift",
    glfw.KEY_LEFT_CONTROL: "ctrl",
    glfw.KEY_LEFT_ALT: "alt",
    glfw.KEY_LEFT_SUPER: "meta_l",
    glfw.KEY_RIGHT_SHIFT: "shift_r",
    glfw.KEY_RIGHT_CONTROL: "ctrl_r",
    glfw.KEY_RIGHT_ALT: "alt_r",
    glfw.KEY_RIGHT_SUPER: "meta_r",
    glfw.KEY_MENU: "compose",
    glfw.KEY_WORLD_1: "less",
    glfw.KEY_WORLD_2: "less",
    **{glfw.KEY_F1 + index: f"f{index + 1}" for index in range(24)},
    **{glfw.KEY_KP_0 + index: f"kp_{index}" for index in range(10)},
}

CODE_OF_GLFW: dict[int, int] = {key: _CODE_OF_QCODE[name] for key, name in _NAMED.items()}
"""Linux's code by GLFW key; printable keys are their ASCII character in GLFW."""

CODE_OF_GLFW |= {
    key: CODE_OF_KEYSYM[key] for key in range(glfw.KEY_SPACE, 0x7F) if key in CODE_OF_KEYSYM
}
