"""Values of commands as people read them, by the protocol's tables."""

from __future__ import annotations

from typing import Any

from hesper.guest.refusals import result_name

MOST_TEXT = 200
"""Characters of a string; what is longer is cut."""
MOST_BYTES = 16
"""Bytes of a blob that are shown."""
MOST_ELEMENTS = 8
"""Of an array, unless all are wanted."""


def text_of(value: Any, *, whole: bool = False) -> str:
    """A decoded value in one line."""
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return _bytes(value, whole=whole)
    if isinstance(value, dict):
        parts = [
            f"{name}={text_of(each, whole=whole)}"
            for name, each in value.items()
            if name != "pNext" and each is not None
        ]
        parts += [f"+{name}{text_of(each, whole=whole)}" for name, each in value.get("pNext") or []]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, tuple):
        return f"<{value[0]}: {text_of(value[1], whole=whole)}>"
    if isinstance(value, list):
        shown = value if whole else value[:MOST_ELEMENTS]
        parts = [text_of(each, whole=whole) for each in shown]
        if len(shown) < len(value):
            parts.append(f"... {len(value)} in all")
        return "[" + ", ".join(parts) + "]"
    return str(value)


def _bytes(value: bytes, *, whole: bool) -> str:
    text = value.rstrip(b"\0")
    if text and all(0x20 <= byte < 0x7F for byte in text) and len(text) <= MOST_TEXT:
        return f'"{text.decode()}"'
    shown = value if whole else value[:MOST_BYTES]
    rest = f"... {len(value)} bytes" if len(shown) < len(value) else ""
    return f"0x{shown.hex()}{rest}"


def plain(value: Any) -> Any:
    """The same for JSON: bytes become text where they are that, else hexadecimal digits."""
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        is_text = bool(text) and all(0x20 <= byte < 0x7F for byte in text)
        return text.decode() if is_text else value.hex()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def result_of(result: int | None, kind: str) -> str:
    """What a command has returned."""
    if result is None:
        return ""
    return f" = {result_name(result) if kind == 'VkResult' else result}"
