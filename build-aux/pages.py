#!/usr/bin/env python3
"""Write what the documentation takes from the sources: docs/api.md, and README's list of commands.

    build-aux/pages.py            write both
    build-aux/pages.py --check    say which is not up to date, and end with 1

Nothing is imported: signatures, defaults and docstrings are read as they stand in the sources.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "hesper"
API = ROOT / "docs" / "api.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- commands: build-aux/pages.py -->\n", "<!-- end of commands -->\n"

INTRODUCTION = """\
# API

<!-- Made from the docstrings by build-aux/pages.py; change those. -->

    import hesper

has six names: `VtestServer`, `GpuDevice`, `Limits`, `drivers`, `diagnose` and `protocol`. They are
imported when they are first asked for, and typed (`py.typed`).
[`examples/embed.py`](../examples/embed.py) is a program that uses them.

Servers can be started and stopped from any thread, several in one process. They take no signals,
want no main thread, do not touch `os.environ`, and set no logging up: what they have to say goes to
the standard library's loggers below `hesper`, as text, and as `record.event` and `record.fields`
for those who want the parts. Workers are processes of their own (`sys.executable` must be a Python
that has what this one has).
"""

SECTIONS: dict[str, list[str]] = {
    "Clients on a Unix socket": ["api.vtest.VtestServer", "api.vtest.VtestOptions"],
    "The GPU of a virtual machine": [
        "api.gpu.GpuDevice",
        "api.gpu.GpuOptions",
        "figures.ContextFigures",
    ],
    "What both have": ["limits.Limits", "classes.ClientClass", "api.server.Served"],
    "The host": [
        "api.drivers.drivers",
        "api.drivers.Drivers",
        "host.drivers.Driver",
        "host.drivers.Device",
        "api.diagnosis.diagnose",
        "api.diagnosis.Diagnosis",
        "host.diagnosis.Finding",
    ],
    "Programs as clients": ["api.client.client_environment", "api.client.find_venus"],
    "The protocol": [
        "protocol.load",
        "protocol.extensions",
        "protocol.guest_extensions",
        "api.commands.served_commands",
        "api.commands.ServedCommand",
    ],
}
"""What the page describes, by where it is defined."""


@dataclass(frozen=True)
class Module:
    """A source file, parsed."""

    name: str
    source: str

    @property
    def tree(self) -> ast.Module:
        """What is in it."""
        return parsed(self.source)

    def find(self, name: str) -> ast.stmt:
        """Its definition of `name`, or that of the module it has `name` from."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return node
        return self.origin(name).find(name)

    def origin(self, name: str) -> Module:
        """The module of Hesper that it imports `name` from."""
        for node in self.tree.body:
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("hesper."):
                continue
            if name in {each.name for each in node.names}:
                return module(str(node.module).removeprefix("hesper."))
        raise LookupError(f"{self.name} has no {name}")


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of a source, the same each time."""
    return ast.parse(source)


@cache
def module(name: str) -> Module:
    """The module `hesper.NAME`."""
    path = SOURCES.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return Module(name, file.read_text(encoding="utf-8"))


def described(node: ast.AST) -> str:
    """Its docstring, with references to our own modules shortened."""
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    text = ast.get_docstring(node) or ""
    return re.sub(r"`(?:hesper\.)?errors\.(\w+)`", r"`\1`", text)


def laid_out(text: str) -> str:
    """A docstring as Markdown: lines that name a parameter become a list."""
    out: list[str] = []
    for line in text.splitlines():
        # An example stays as it is.
        if re.match(r"[a-z_]+(, [a-z_]+)*: ", line) and not line.startswith("https:"):
            name, _, rest = line.partition(": ")
            if out and out[-1] and not out[-1].startswith(("- ", "  ")):
                out.append("")
            out.append(f"- `{name}`: {rest}")
        elif out and out[-1].startswith(("- ", "  ")) and line and not line.startswith(" "):
            if re.match(r"(Raises|Takes|Source|Wants|Options|From) ?", line):
                out += ["", line]
            else:
                out.append(f"  {line}")
        else:
            out.append(line)
    return "\n".join(out)


def signature(function: ast.FunctionDef, *, name: str = "") -> str:
    """The head of a function, without `self`, on as many lines as it takes."""
    parts = list(parameters(function.args))
    returns = f" -> {ast.unparse(function.returns)}" if function.returns and not name else ""
    text = f"{name or function.name}({', '.join(parts)}){returns}"
    if len(text) <= 96:
        return text
    lines = "".join(f"\n    {part}," for part in parts)
    return f"{name or function.name}({lines}\n){returns}"


def parameters(arguments: ast.arguments) -> Iterator[str]:
    """Each parameter, with its type and default."""
    missing = len(arguments.args) - len(arguments.defaults)
    defaults = [None] * missing + arguments.defaults
    for argument, value in zip(arguments.args, defaults, strict=True):
        if argument.arg not in {"self", "cls"}:
            yield ast.unparse(argument) + (f" = {ast.unparse(value)}" if value else "")
    if arguments.kwonlyargs:
        yield "*"
    for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield ast.unparse(argument) + (f" = {ast.unparse(value)}" if value else "")


def ancestry(home: Module, node: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef]]:
    """A class and those of ours that it is made from, the first one first."""
    for base in node.bases:
        if isinstance(base, ast.Name):
            try:
                found = home.find(base.id)
            except LookupError:
                continue
            assert isinstance(found, ast.ClassDef)
            yield from ancestry(home if found in home.tree.body else home.origin(base.id), found)
    yield home, node


def fields(home: Module, node: ast.ClassDef) -> Iterator[str]:
    """Its attributes that have a docstring, or a type; a line each."""
    while node not in home.tree.body:
        # It is imported there, and its defaults stand where it comes from.
        home = home.origin(node.name)
    for field, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name, kind = field.target.id, ast.unparse(field.annotation)
        if name.startswith("_") or kind == "TypeAlias":
            continue
        text = f"`{name}: {kind}`"
        if field.value is not None and "factory" not in ast.unparse(field.value):
            value = ast.get_source_segment(home.source, field.value)
            text = f"`{name}: {kind} = {value}`"
        about = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            about = " ".join(inspect.cleandoc(str(after.value.value)).split())
        yield f"- {text}" + (f"  \n  {about}" if about else "")


def members(node: ast.ClassDef) -> Iterator[str]:
    """Its public methods and properties."""
    for each in node.body:
        if not isinstance(each, ast.FunctionDef) or each.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in each.decorator_list}
        head = signature(each)
        if "property" in decorators:
            kind = f": {ast.unparse(each.returns)}" if each.returns else ""
            head = f"{each.name}{kind}"
        yield f"#### {each.name}\n\n```python\n{head}\n```\n\n{laid_out(described(each))}\n"


def about_class(home: Module, node: ast.ClassDef) -> Iterator[str]:
    """All there is to say of a class."""
    line = list(ancestry(home, node))
    yield laid_out(described(node)) + "\n"
    for _, kin in line[:-1]:
        yield laid_out(described(kin)) + "\n" if kin.name == "Server" else ""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            yield f"```python\n{signature(each, name=node.name)}\n```\n"
            yield laid_out(described(each)) + "\n"
    lines = [field for each in line for field in fields(*each)]
    if lines:
        yield "\n".join(lines) + "\n"
    # What is its own first.
    for _, kin in reversed(line):
        yield from members(kin)


def about_errors() -> Iterator[str]:
    """The hierarchy of errors."""
    yield "## Errors\n"
    home = module("errors")
    yield described(home.tree) + "\n"
    rows = ["| error | | |", "|---|---|---|"]
    for node in home.tree.body:
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(f"`{ast.unparse(base)}`" for base in node.bases)
            text = " ".join(described(node).split())
            rows.append(f"| `{node.name}` | is a {bases} | {text} |")
    yield "\n".join(rows) + "\n"


def api_page() -> str:
    """docs/api.md."""
    parts = [INTRODUCTION]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for path in names:
            place, _, name = path.rpartition(".")
            home = module(place)
            node = home.find(name)
            if isinstance(node, ast.ClassDef):
                parts.append(f"### {name}\n")
                parts += filter(None, about_class(home, node))
            else:
                assert isinstance(node, ast.FunctionDef)
                parts.append(f"### {name}\n\n```python\n{signature(node)}\n```\n")
                parts.append(laid_out(described(node)) + "\n")
    parts += about_errors()
    return "\n".join(parts)


def command_list() -> str:
    """README's table of commands: a row a file of `hesper/cli`."""
    rows = ["| command | |", "|---|---|"]
    for path in sorted((SOURCES / "cli").glob("*.py")):
        if not path.stem.startswith("_"):
            text = described(module(f"cli.{path.stem}").tree).splitlines()[0]
            rows.append(f"| `hesper {path.stem.replace('_', '-')}` | {text} |")
    return "\n".join(rows) + "\n"


def readme() -> str:
    """README.md with its list of commands."""
    text = README.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README}: lacks {BEGIN.strip()} or {END.strip()}")
    return f"{head}{begin}\n{command_list()}\n{end}{tail}"


def main() -> None:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = False
    for path, text in ((API, api_page()), (README, readme())):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            stale = True
            print(f"{path.relative_to(ROOT)} is not up to date: run build-aux/pages.py")
        else:
            path.write_text(text, encoding="utf-8")
    sys.exit(stale)


if __name__ == "__main__":
    main()
