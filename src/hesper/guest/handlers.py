"""The registry of commands that are served in Python.

A handler is a function of (context, call), put here by the decorator `handles`.  `bind` makes of
all of them what `kernel.engine.Engine` wants.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

from hesper.guest.errors import VulkanError
from hesper.guest.refusals import device_asked_for
from hesper.kernel.errors import ProtocolError
from hesper.log import get_logger

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.kernel.handlers import Call

Handler: TypeAlias = "Callable[[Context, Call], None]"

_ROOMS = (
    "descriptor_heap",
    "device",
    "external",
    "image",
    "image_copy",
    "instance",
    "memory",
    "modifiers",
    "pipeline_cache",
    "private_data",
    "properties",
    "queue",
    "results",
    "sparse",
    "staging_commands",
    "sync",
    "transport",
)
"""Modules that hold handlers."""

_handlers: dict[str, Handler] = {}

log = get_logger(__name__)

_asleep: list[str] = []
"""Commands whose handlers are not asked at first."""


def handles(*commands: str, asleep: bool = False) -> Callable[[Handler], Handler]:
    """Register the decorated function for `commands`.

    asleep: the kernel serves them by itself until `Engine.wake` is called.
    """

    def register(handler: Handler) -> Handler:
        for command in commands:
            if command in _handlers:
                raise ValueError(f"{command} has two handlers")
            _handlers[command] = handler
            if asleep:
                _asleep.append(command)
        return handler

    return register


def all_handlers() -> dict[str, Handler]:
    """Every handler by its command's name."""
    for room in _ROOMS:
        import_module(f"hesper.guest.{room}")
    return dict(_handlers)


def asleep() -> list[str]:
    """Commands whose handlers are not asked at first."""
    return _asleep


def bind(context: Context) -> dict[str, Callable[[Call], None]]:
    """Every handler with `context` bound, by command."""
    return {name: _bound(handler, context) for name, handler in all_handlers().items()}


def _bound(handler: Handler, context: Context) -> Callable[[Call], None]:
    def serve(call: Call) -> None:
        try:
            handler(context, call)
        except VulkanError as error:
            log.debug("refused", context=context.name, command=call.name, reason=str(error))
            call.reason = str(error)
            try:
                call.result = error.result
            except TypeError:
                # A command without a result has no way to say so.
                raise ProtocolError(str(error)) from error
        else:
            if call.result < 0 and call.name == "vkCreateDevice":
                call.reason = f"the driver said so; {device_asked_for(call)}"

    return serve
