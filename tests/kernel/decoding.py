"""An engine whose commands are all handlers', to see what the kernel decodes."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from typing import Any

from hesper.kernel.engine import Engine
from hesper.kernel.handlers import Call
from hesper.kernel.views import Array, Scratch, View
from hesper.kernel.vulkan import Vulkan
from hesper.protocol.codec import Codec
from hesper.protocol.model import Field, Struct, load
from hesper.protocol.relations import NOTHING, Known
from protocol.relating import LARGER, Relating, ids

MODEL = load()
CODEC = Codec(MODEL)
SENT = sorted(c.name for c in MODEL.commands.values() if not c.refused)
REPLY_BYTES = 1 << 20
REPLY_RESOURCE = 1
DEVICE_LEVEL = [h for h in MODEL.handles if h not in ("VkInstance", "VkPhysicalDevice")]


class Bench:
    """An engine in which every command is a handler's, and one object of each type lives."""

    def __init__(self, known: Known = NOTHING, *, takes_null: bool = True) -> None:
        """`known`: the limits of the device, and facts of its objects.

        takes_null: whether it has the features by which a guest may name nothing.
        """
        self.takes_null = takes_null
        self.vulkan = Vulkan("libvulkan.so.1")
        self.known = known
        if known.limits:
            fields = [f.name for f in MODEL.structs["VkPhysicalDeviceLimits"].fields]
            limits = {name: known.limits[name] for name in fields if name in known.limits}
            view = Scratch().new("VkPhysicalDeviceLimits", **limits)
            self.vulkan.globals.know_limits(view, known.limits)
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.expected: dict[str, Any] = {}
        self.problems: list[str] = []
        self.outputs: dict[str, Any] = {}
        self.handles = {name: (1000 + i) for i, name in enumerate(MODEL.handles)}
        self.ids = ids(MODEL)
        self.next_id = 1 << 20
        self.reply = ctypes.create_string_buffer(REPLY_BYTES)
        self.start()

    def start(self) -> None:
        """A fresh engine."""
        self.fatal: list[str] = []
        self.engine = Engine(
            self.vulkan,
            {name: self.handle for name in SENT if name != "vkSetReplyCommandStreamMESA"},
            arena_limit=64 << 20,
            object_limit=1 << 16,
            resource_limit=16,
            memory_limit=1 << 20,
            on_fatal=self.fatal.append,
        )
        table = self.vulkan.globals
        self.engine.objects.add(self.ids["VkInstance"], "VkInstance", 1000, table=table)
        instance = self.ids["VkInstance"]
        self.engine.objects.add(
            self.ids["VkPhysicalDevice"], "VkPhysicalDevice",
            self.handles["VkPhysicalDevice"], parent=instance, table=table,
        )  # fmt: skip
        device = self.ids["VkDevice"]
        self.engine.objects.add(device, "VkDevice", self.handles["VkDevice"], table=table)
        allowed = self.takes_null
        self.engine.devices.describe_nulls(device, descriptors=allowed, indices=allowed)
        for name in DEVICE_LEVEL:
            if name != "VkDevice":
                self.add(name, 0, device)
            if self.ids[name] in self.known.objects:
                self.add(name, LARGER, device)
        self.engine.resources.add(REPLY_RESOURCE, ctypes.addressof(self.reply), REPLY_BYTES)
        stream = {"pStream": {"resourceId": REPLY_RESOURCE, "offset": 0, "size": REPLY_BYTES}}
        self.engine.submit(CODEC.encode("vkSetReplyCommandStreamMESA", stream))

    def add(self, name: str, above: int, device: int) -> None:
        """Make an object of a type."""
        at = self.ids[name] + above
        facts = tuple(self.known.objects.get(at, {}).values())
        self.engine.objects.add(at, name, self.handles[name], device=device, facts=facts)

    def values(self, rng: random.Random) -> Relating:
        """Values whose handles are those objects, and whose new ids are free."""

        def fresh() -> int:
            self.next_id += 1
            return self.next_id

        return Relating(
            MODEL,
            rng,
            handle=lambda t: rng.choice((0, self.ids[t])),
            new_handle=fresh,
            known=self.known,
        )

    def handle(self, call: Call) -> None:
        """Compare what the kernel decoded with what was sent, then fill the outputs."""
        command = MODEL.commands[call.name]
        self.problems += list(self.differences(command.fields, call.args, self.expected, call.name))
        self.seen.append((call.name, {}))
        rng = random.Random(call.name)
        self.outputs = {
            f.name: self.fill(f, getattr(call.args, f.name), rng)
            for f in command.fields
            if f.output and f.shape != "null" and f.kind != "handle"
        }

    # Comparing.

    def differences(
        self, fields: tuple[Field, ...], view: View, values: dict[str, Any], where: str
    ) -> Iterator[str]:
        for f in fields:
            if f.name in ("sType", "pNext") or f.name not in values or f.output:
                continue
            yield from self.difference(
                f, getattr(view, f.name), values[f.name], f"{where}.{f.name}"
            )

    def difference(self, f: Field, got: Any, sent: Any, where: str) -> Iterator[str]:  # noqa: C901, PLR0912  a case a shape
        if f.shape == "null":
            if got != 0:
                yield f"{where}: {got} instead of null"
        elif f.shape == "nested":
            if bool(got) != bool(sent):
                yield f"{where}: {got} for {sent}"
        elif sent is None:
            if got is not None:
                yield f"{where}: {got} instead of null"
        elif f.shape == "string":
            if got != sent.decode():
                yield f"{where}: {got!r} for {sent!r}"
        elif f.shape == "strings":
            if [t.encode() for t in got] != sent:
                yield f"{where}: {list(got)} for {sent}"
        elif f.kind in ("struct", "union") and f.shape in ("value", "pointer"):
            yield from self.struct_difference(f, got, sent, where)
        elif f.shape == "value":
            yield from self.scalar_difference(f, got, sent, where)
        elif f.kind == "char":
            if got != sent.split(b"\0")[0].decode("utf-8", "replace"):
                yield f"{where}: {got!r} for {sent!r}"
        elif isinstance(sent, bytes):
            if bytes(got) != sent:
                yield f"{where}: other bytes"
        elif f.shape == "pointer":
            yield from self.scalar_difference(f, got[0], sent, where)
        else:
            if len(got) != len(sent):
                yield f"{where}: {len(got)} elements for {len(sent)}"
                return
            for i, (a, b) in enumerate(zip(got, sent, strict=True)):
                if f.kind in ("struct", "union"):
                    yield from self.struct_difference(f, a, b, f"{where}[{i}]")
                else:
                    yield from self.scalar_difference(f, a, b, f"{where}[{i}]")

    def scalar_difference(self, f: Field, got: Any, sent: Any, where: str) -> Iterator[str]:
        if f.kind == "handle":
            sent = self.handles[f.type] if sent else 0
        if got != sent:
            yield f"{where}: {got} for {sent}"

    def struct_difference(self, f: Field, got: View, sent: Any, where: str) -> Iterator[str]:
        s = MODEL.structs[f.type]
        if s.cases:
            tag, inner = sent
            case = next(c for c in s.cases if tag in c.tags)
            yield from self.difference(case.field, getattr(got, case.field.name), inner, where)
            return
        yield from self.differences(s.fields, got, sent, where)
        if s.stype is None:
            return
        chain = list(got.chain_())
        if [v.struct_ for v in chain] != [name for name, _ in sent["pNext"]]:
            yield f"{where}: another chain"
            return
        for view, (name, value) in zip(chain, sent["pNext"], strict=True):
            yield from self.differences(MODEL.structs[name].fields, view, value, f"{where}:{name}")

    # Filling outputs.

    def fill(self, f: Field, got: Any, rng: random.Random) -> Any:
        """Write into an output parameter; returns what the reply must carry."""
        if got is None:
            return None
        if f.kind == "struct":
            s = MODEL.structs[f.type]
            if f.shape == "pointer":
                return self.fill_struct(s, got, rng)
            return [self.fill_struct(s, element, rng) for element in got]
        if f.kind == "blob":
            return got
        if f.shape == "pointer":
            if not f.counts:
                got[0] = rng.randrange(100)
            return got[0]
        for i in range(len(got)):
            got[i] = rng.randrange(100)
        return list(got)

    def fill_struct(self, s: Struct, view: View, rng: random.Random) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if s.stype is not None:
            value["pNext"] = [
                (v.struct_, self.fill_fields(MODEL.structs[v.struct_], v, rng))
                for v in view.chain_()
            ]
        return value | self.fill_fields(s, view, rng)

    def fill_fields(self, s: Struct, view: View, rng: random.Random) -> dict[str, Any]:
        own = [f for f in s.fields if f.name not in ("sType", "pNext")]
        return {f.name: self.fill_field(f, view, rng) for f in own}

    def fill_field(self, f: Field, view: View, rng: random.Random) -> Any:
        got = getattr(view, f.name)
        if f.shape == "value":
            if f.kind == "struct":
                return self.fill_struct(MODEL.structs[f.type], got, rng)
            if f.kind == "handle" or f.counts:
                return got
            setattr(view, f.name, rng.randrange(100))
            return getattr(view, f.name)
        if f.shape == "fixed":
            assert f.length is not None
            count = f.length.constant
            if f.kind == "char":
                view_text = f"text {rng.randrange(100)}"
                setattr(view, f.name, view_text)
                return view_text.encode().ljust(count, b"\0")
            if f.size == 1:
                setattr(view, f.name, rng.randbytes(count))
                return getattr(view, f.name)
            if f.kind == "struct":
                return [self.fill_struct(MODEL.structs[f.type], element, rng) for element in got]
            for i in range(count):
                got[i] = rng.randrange(100)
            return list(got)
        if isinstance(got, Array):
            return self.fill(f, got, rng)
        return got
