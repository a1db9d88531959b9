"""What a person asks of a recording; every answer is lines of text."""

from __future__ import annotations

import collections
import fnmatch
import hashlib
import heapq
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from hesper.trace.decoded import Decoded, codec, decode, handles, kind_of, name_of
from hesper.trace.records import BLOB_BODY, EARLIER, Kind, Reader, Record, command_of, memory_of
from hesper.trace.show import plain, result_of, text_of

MOST_SLOW = 20
"""Lines of each list of `slow`."""
MOST_SHADERS = 100_000
MOST_TOLD = 100
"""Of what a summary tells one by one: devices, and commands that were never finished."""
MOST_STREAMS = 1024
"""That are counted each: as many rings as a guest may have by default."""

_TOLD = frozenset(
    {
        "vkCreateInstance",
        "vkCreateDevice",
        "vkAllocateMemory",
        "vkGetPhysicalDeviceProperties2",
    }
)
"""Commands that a summary looks into."""
_SUBMISSIONS = ("vkQueueSubmit", "vkQueueSubmit2", "vkQueueBindSparse")


class Filter(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which commands are meant."""

    name: str = "*"
    """As in file names, with `*` and `?`."""
    object: int | None = None
    """That name this object."""
    ring: int | None = None
    """Of this stream: the guest's id of the ring, 0 for the context's own."""
    begin: float = 0.0
    """Seconds."""
    end: float = float("inf")


def commands(reader: Reader, wanted: Filter) -> Iterator[Decoded]:
    """The commands that are meant."""
    number = -1
    for record in reader:
        if record.kind != Kind.COMMAND:
            continue
        number += 1
        if wanted.ring is not None and record.stream != wanted.ring:
            continue
        if not wanted.begin <= record.time / 1e9 <= wanted.end:
            continue
        if not fnmatch.fnmatchcase(name_of(command_of(record).data), wanted.name):
            continue
        found = decode(number, record)
        if wanted.object is None or wanted.object in _named(found):
            yield found


def _named(found: Decoded) -> set[int]:
    description = codec().model.commands.get(found.name)
    if description is None or found.parameters is None:
        return set()
    return set(handles(found.parameters, description)) | set(handles(found.outputs, description))


def line_of(found: Decoded, *, whole: bool = False) -> str:
    """A command as a line."""
    where = f"ring {found.stream}" if found.stream else "own"
    if found.is_nested:
        where += " (stream)"
    if found.is_earlier:
        where += " (earlier)"
    head = f"{found.number:6d} {found.time / 1e9:12.6f} {found.duration / 1e3:10.1f} us  {where}  "
    if found.parameters is None:
        return f"{head}{found.name}: {len(found.data)} bytes: {found.problem}"
    text = f"{head}{found.name}({text_of(found.parameters, whole=whole)[1:-1]})"
    description = codec().model.commands[found.name]
    text += result_of(found.result, description.result)
    if found.outputs:
        text += f" -> {text_of(found.outputs, whole=whole)}"
    if found.problem:
        text += f" (its reply cannot be read: {found.problem})"
    return text + (" FAILED" if found.has_failed else "")


def json_of(found: Decoded) -> str:
    """The same as JSON."""
    return json.dumps(
        {
            "number": found.number,
            "name": found.name,
            "time_ns": found.time,
            "duration_ns": found.duration,
            "ring": found.stream,
            "nested": found.is_nested,
            "earlier": found.is_earlier,
            "failed": found.has_failed,
            "parameters": plain(found.parameters),
            "result": found.result,
            "outputs": plain(found.outputs),
            "problem": found.problem,
        }
    )


def slow(reader: Reader) -> Iterator[str]:
    """Where the time went: by command, and the longest ones."""
    spent: collections.Counter[str] = collections.Counter()
    count: collections.Counter[str] = collections.Counter()
    longest: list[tuple[int, int, str]] = []
    """Their lines: commands may be long, and their lines are not."""
    number = -1
    for record in reader:
        if record.kind != Kind.COMMAND:
            continue
        number += 1
        body = command_of(record)
        name = kind_of(body.data)
        spent[name] += body.duration
        count[name] += 1
        # Of those that took as long, the first ones.
        if len(longest) < MOST_SLOW:
            heapq.heappush(longest, (body.duration, -number, line_of(decode(number, record))))
        elif body.duration > longest[0][0]:
            heapq.heapreplace(longest, (body.duration, -number, line_of(decode(number, record))))
    total = sum(spent.values()) or 1
    yield f"{total / 1e9:.3f} s in {sum(count.values())} commands"
    for name, took in spent.most_common(MOST_SLOW):
        each = took / count[name] / 1e3
        yield (
            f"{100 * took / total:6.1f} %  {took / 1e6:10.2f} ms  {count[name]:8d} times"
            f"  {each:10.1f} us each  {name}"
        )
    yield "the longest:"
    for _, _, line in sorted(longest, reverse=True):
        yield line


def shaders(reader: Reader) -> Iterator[tuple[str, bytes]]:
    """SPIR-V that the guest has given, by name; each once."""
    seen: set[str] = set()
    for found in commands(reader, Filter(name="vkCreate*")):
        for code in _code(found.parameters):
            name = hashlib.sha256(code).hexdigest()[:16]
            if name not in seen and len(seen) < MOST_SHADERS:
                seen.add(name)
                yield f"{name}.spv", code


def _code(value: Any) -> Iterator[bytes]:
    """SPIR-V in decoded parameters."""
    if isinstance(value, dict):
        code = value.get("pCode")
        if isinstance(code, list):
            yield b"".join(word.to_bytes(4, "little") for word in code)
        elif isinstance(code, bytes):
            yield code
        for each in value.values():
            yield from _code(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            if isinstance(each, (dict, list, tuple)):
                yield from _code(each)


class _Summary:
    """What a summary counts."""

    def __init__(self) -> None:
        self.count: collections.Counter[str] = collections.Counter()
        self.streams: collections.Counter[int] = collections.Counter()
        self.kinds: collections.Counter[Kind] = collections.Counter()
        self.written = 0
        self.allocated = 0
        self.blobs = 0
        self.blob_bytes = 0
        self.since: int | None = None
        self.until = 0
        self.earlier = 0
        self.screens: set[int] = set()
        self.last_begun: tuple[int, str] | None = None
        self.end: str | None = None
        self.other_streams = 0
        """Commands of streams that are not counted each."""
        self.facts: list[str] = []
        self.unfinished: list[str] = []

    def take(self, number: int, record: Record) -> None:
        self.kinds[record.kind] += 1
        if record.flags & EARLIER:
            self.earlier += record.kind == Kind.COMMAND
        else:
            self.since = record.time if self.since is None else self.since
            self.until = max(self.until, record.time)
        if record.kind == Kind.COMMAND:
            self._command(number, record)
        elif record.kind in (Kind.MEMORY, Kind.LAST):
            self.written += len(memory_of(record)[2])
        elif record.kind == Kind.BLOB:
            _, _, memory, size = BLOB_BODY.unpack_from(record.body)
            self.blobs += 1
            self.blob_bytes += size if memory else 0
        elif record.kind == Kind.BEGUN:
            self.last_begun = (record.stream, name_of(record.body))
        elif record.kind == Kind.UNFINISHED and len(self.unfinished) < MOST_TOLD:
            self.unfinished.append(f"{name_of(record.body)} (stream {record.stream})")
        elif record.kind == Kind.PICTURE:
            self.screens.add(int.from_bytes(record.body[:4], "little"))
        elif record.kind == Kind.END and self.end is None:
            self.end = record.body.decode(errors="replace")

    def _command(self, number: int, record: Record) -> None:
        data = command_of(record).data
        name = name_of(data)
        self.count[kind_of(data)] += 1
        if record.stream in self.streams or len(self.streams) < MOST_STREAMS:
            self.streams[record.stream] += 1
        else:
            self.other_streams += 1
        if self.last_begun is not None and self.last_begun == (record.stream, name):
            self.last_begun = None
        if name not in _TOLD or (name == "vkGetPhysicalDeviceProperties2" and self.count[name] > 1):
            return
        found = decode(number, record)
        if found.parameters is not None:
            self._fact(name, found)

    def _fact(self, name: str, found: Decoded) -> None:
        parameters = found.parameters or {}
        if name == "vkAllocateMemory":
            self.allocated += (parameters.get("pAllocateInfo") or {}).get("allocationSize", 0)
        elif len(self.facts) >= MOST_TOLD:
            return
        elif name == "vkCreateInstance":
            about = (parameters.get("pCreateInfo") or {}).get("pApplicationInfo") or {}
            self.facts.append(
                f"instance: program {text_of(about.get('pApplicationName'))}, engine"
                f" {text_of(about.get('pEngineName'))}, Vulkan {_version(about.get('apiVersion'))}"
            )
        elif name == "vkGetPhysicalDeviceProperties2":
            properties = (found.outputs.get("pProperties") or {}).get("properties") or {}
            self.facts.append(
                f"physical device: {text_of(properties.get('deviceName'))}, Vulkan"
                f" {_version(properties.get('apiVersion'))}"
            )
        else:
            info = parameters.get("pCreateInfo") or {}
            names = info.get("ppEnabledExtensionNames") or []
            self.facts.append(
                "device: extensions " + (", ".join(text_of(each) for each in names) or "none")
            )
            features = sorted(_features(info))
            self.facts.append("device: features " + (", ".join(features) or "none"))


def _features(value: dict[str, Any]) -> Iterator[str]:
    """Names of the features that a device is created with."""
    for name, each in (value.get("pEnabledFeatures") or {}).items():
        if each == 1:
            yield name
    for struct, chained in value.get("pNext") or []:
        if "Features" not in struct:
            continue
        fields = {**chained, **(chained.get("features") or {})}
        for name, each in fields.items():
            if each == 1 and isinstance(each, int):
                yield name


def _version(value: Any) -> str:
    if not isinstance(value, int):
        return "unknown"
    return f"{value >> 22 & 0x7F}.{value >> 12 & 0x3FF}.{value & 0xFFF}"


def summary(reader: Reader) -> Iterator[str]:
    """What the recording is of, and how much of what is in it."""
    about = reader.about
    found = _Summary()
    number = -1
    for record in reader:
        number += record.kind == Kind.COMMAND
        found.take(number, record)
    yield f"program: {about.program}"
    profile = f", as {about.profile}" if about.profile else ""
    yield f"host: {about.device} ({about.driver}{profile}), by {about.transport}"
    yield f"Hesper {about.hesper or '(version unknown)'}, registry 1.4.{about.registry}"
    yield from found.facts
    yield f"time: {(found.until - (found.since or 0)) / 1e9:.3f} s"
    if found.earlier:
        yield f"earlier: {found.earlier} commands, which have made what lived then"
    streams = ", ".join(
        f"{'own' if stream == 0 else f'ring {stream}'} {count}"
        for stream, count in sorted(found.streams.items())
    )
    others = f", others {found.other_streams}" if found.other_streams else ""
    yield f"commands: {found.kinds[Kind.COMMAND]} ({streams or 'none'}{others})"
    submissions = sum(found.count[name] for name in _SUBMISSIONS)
    pipelines = sum(found.count[name] for name in found.count if _makes_pipelines(name))
    yield f"submissions: {submissions}; fences: {found.kinds[Kind.FENCE]}"
    yield f"pipelines: {pipelines}; shader modules: {found.count['vkCreateShaderModule']}"
    yield (
        f"memory: {found.allocated} bytes allocated; {found.blobs} resources, {found.blob_bytes}"
        f" bytes of them device memory; {found.written} bytes noted"
    )
    if found.kinds[Kind.PICTURE]:
        yield f"pictures: {found.kinds[Kind.PICTURE]} parts of {len(found.screens)} screens"
    yield "most: " + ", ".join(f"{name} {n}" for name, n in found.count.most_common(8))
    yield from _end(reader, found)


def _makes_pipelines(name: str) -> bool:
    return name.startswith("vkCreate") and "Pipelines" in name


def _end(reader: Reader, found: _Summary) -> Iterator[str]:
    """How the recording ends."""
    if reader.missing:
        lacks = ", and what they have made" if reader.lacks_beginning else ""
        yield f"left out: {reader.missing} chunks at the beginning{lacks}"
    if found.end is None:
        yield "end: none was noted: the process has died, or still runs"
    else:
        yield f"end: {found.end}" if found.end else "end: the client has left in order"
    for what in found.unfinished:
        yield f"unfinished when the process died: {what}"
    if found.end is None and found.last_begun is not None:
        stream, name = found.last_begun
        yield f"unfinished: {name} (stream {stream})"
    if reader.cut >= 0:
        yield f"cut off: the last chunk, at byte {reader.cut}, is not all there"
    if reader.unfinished:
        yield f"cut off: {reader.unfinished} records whose end is missing"
