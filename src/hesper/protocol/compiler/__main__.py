"""`python -m hesper.protocol.compiler FOLDER`: write the model and the kernel's tables there."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from vulkan_object import get_vulkan_object

from hesper.protocol.compiler import enumerants, header
from hesper.protocol.compiler import facts as facts_file
from hesper.protocol.compiler.bounds import Bounds, same
from hesper.protocol.compiler.bounds import read as read_bounds
from hesper.protocol.compiler.emit import Emitter
from hesper.protocol.compiler.names import Names
from hesper.protocol.compiler.registry import Builder
from hesper.protocol.compiler.relations import RelationReader
from hesper.protocol.compiler.sets import Sets
from hesper.protocol.compiler.sets import read as read_sets
from hesper.protocol.compiler.tables import TableBuilder
from hesper.protocol.model import Summary

FACTS = Path(__file__).parent.parent / "facts"


def main(folder: Path) -> None:
    """Write all build products into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = facts_file.read(FACTS)
    vk = get_vulkan_object()
    model = Builder(vk, facts).build()
    reader = RelationReader(model, vk)
    model.facts = reader.read_facts(facts.object_facts)
    rules = read_bounds(FACTS / "bounds.toml")
    model.relations = reader.read(reader.with_enumerants(facts.relations, same(rules)))
    bounds = Bounds(model, rules)
    sets = Sets(model, read_sets(FACTS / "sets.toml"))
    emitter = Emitter(model, TableBuilder(model, bounds, sets), vk, facts)
    (folder / "model.json").write_bytes(msgspec.json.encode(model))
    summary = Summary(
        model.header_version,
        model.handles,
        model.extensions,
        model.guest_extensions,
        {name: c.provided_by for name, c in model.commands.items() if c.provided_by},
    )
    (folder / "summary.json").write_bytes(msgspec.json.encode(summary))
    (folder / "tables.c").write_text(emitter.tables())
    (folder / "calls.c").write_text(emitter.calls())
    (folder / "layout_check.c").write_text(emitter.layout_check())
    names = Names(model, vk)
    (folder / "commands.h").write_text(names.header())
    (folder / "hesper_commands.pxd").write_text(names.declarations())
    header.write(folder)
    enumerants.write(vk, FACTS, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
