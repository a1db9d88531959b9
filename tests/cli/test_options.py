"""What commands can be asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from cyclopts import App

from hesper.cli import commands, make_app


def with_subcommands(app: App) -> Iterator[App]:
    """Those that do something themselves."""
    if app.default_command is not None:
        yield app
    for name in app:
        if not name.startswith("-"):
            yield from with_subcommands(app[name])


@pytest.mark.parametrize("command", commands())
def test_no_name_is_two_options(command: str) -> None:
    """Options are put together from groups, whose authors may not know each other."""
    found = list(with_subcommands(make_app([command])[command]))
    assert found
    for app in found:
        arguments = app.assemble_argument_collection()
        # "*" is what a group of options is called.
        names = Counter(name for each in arguments for name in each.names if name != "*")
        assert [name for name, times in names.items() if times > 1] == []
