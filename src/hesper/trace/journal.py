"""What lives at a place of a recording, as the commands that made it what it is.

A recording of the last seconds begins with them: a replay does these first.  They are the guest's
own commands in their order, less those of which nothing is left, so that each finds what it found
then.  An object that is gone stays in as long as one that lives was made of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from hesper.trace.decoded import Decoded, codec, decode, handles
from hesper.trace.journal_waits import Waits
from hesper.trace.plan import BINDS
from hesper.trace.records import (
    BLOB_BODY,
    COMMAND_BODY,
    EARLIER,
    FAILED,
    HEAD,
    MORE,
    Kind,
    Record,
    cut,
    join,
    put,
    split,
)
from hesper.trace.translate import ASKS
from hesper.vk.enumerants import VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT

_NUMBER = struct.Struct("<I")
_HANDLE = struct.Struct("<Q")
_FIRST_HANDLE = COMMAND_BODY.size + 8
"""Where the first parameter stands, which is a handle: behind number and flags."""

_LAYOUTS = {"vkGetImageSubresourceLayout": "image", "vkGetImageSubresourceLayout2": "image"}
"""Asked about, to find pictures."""


class _Entry:
    """A command, or a resource that was made or given back."""

    __slots__ = ("data", "serial", "uses")

    def __init__(self, serial: int, data: bytes, uses: list[_Life]) -> None:
        self.serial = serial
        self.data = data
        self.uses = uses


class _Life:
    """An object from its making to its end; what comes again under its id is another."""

    __slots__ = ("begun", "end", "entries", "id", "keyed", "kids", "parents", "recording")

    def __init__(self, id_: int, parents: list[_Life]) -> None:
        self.id = id_
        self.entries: list[_Entry] = []
        """What made it, and has changed it for good."""
        self.keyed: dict[Any, _Entry] = {}
        """What has changed a part of it, which the next such command changes again."""
        self.end: _Entry | None = None
        self.kids: set[_Life] = set()
        """What ends with it."""
        self.parents = parents
        self.begun: Decoded | None = None
        """Of a command buffer: how its recording was begun."""
        self.recording: list[tuple[int, Record]] = []


class Journal:
    """What lives, as of the records that it was fed."""

    def __init__(self) -> None:
        """Nothing lives."""
        self._serial = 0
        self._alive: dict[Any, _Life] = {}
        self._pieces: dict[tuple[int, int], list[bytes]] = {}
        self._waits = Waits()
        commands = codec().model.commands.values()
        self._commands = {c.number: c for c in commands}
        self._into_buffers = {
            c.number for c in commands if c.name.startswith("vkCmd") or c.name in _INTO_BUFFERS
        }
        self._wanted = {
            c.number
            for c in commands
            if c.creates or c.name in _CHANGES or self._waits.notes(c.name) or _victims(c)
        }

    def feed(self, data: bytes) -> int:
        """Take note of records as the tape has them, up to a WHOLE: where it begins, -1: none."""
        at = 0
        for piece in split(data, 0):
            if piece.kind == Kind.WHOLE:
                return at
            whole = join(self._pieces, piece)
            if whole is not None:
                self._serial += 1
                self._take(whole)
            at += HEAD.size + len(piece.body)
        return -1

    def begun(self) -> bytes:
        """Pieces of records whose end is still to come."""
        return b"".join(
            put(Kind(kind), body, flags=MORE, stream=stream)
            for (kind, stream), bodies in self._pieces.items()
            for body in bodies
        )

    def records(self) -> Iterator[bytes]:
        """What makes all that lives again: records, marked as earlier ones."""
        found: dict[int, bytes] = {}
        wanted = list(self._alive.values())
        recorded = self._recorded()
        for life in recorded:
            found |= {serial: _earlier(record) for serial, record in life.recording}
        seen = set(map(id, wanted))
        while wanted:
            life = wanted.pop()
            last = [life.end] if life.end is not None else []
            for entry in (*life.entries, *life.keyed.values(), *last):
                if entry.serial in found:
                    continue
                found[entry.serial] = entry.data
                fresh = [used for used in entry.uses if id(used) not in seen]
                seen.update(map(id, fresh))
                wanted += fresh
        for _, data in sorted(found.items()):
            yield data
        for name, parameters in self._waits.commands(self._alive):
            yield put(
                Kind.COMMAND,
                COMMAND_BODY.pack(0, 0, 0) + codec().encode(name, parameters),
                flags=EARLIER,
            )

    # Records.

    def _take(self, record: Record) -> None:
        if record.kind == Kind.COMMAND:
            if not record.flags & FAILED:
                self._command(record)
        elif record.kind == Kind.BLOB:
            resource, _, memory, _ = BLOB_BODY.unpack_from(record.body)
            self._make(record, [("resource", resource)], self._living([memory]))
        elif record.kind == Kind.IMPORT:
            self._make(record, [("resource", _NUMBER.unpack_from(record.body)[0])], [])
        elif record.kind == Kind.GONE:
            self._end(record, [("resource", _NUMBER.unpack_from(record.body)[0])])

    def _command(self, record: Record) -> None:
        number = _NUMBER.unpack_from(record.body, COMMAND_BODY.size)[0]
        if number in self._into_buffers:
            self._record(number, record)
            return
        if number not in self._wanted:
            return
        found = decode(self._serial, record)
        if found.parameters is None or _has_failed(self._commands[number], found):
            return
        self._live_on(self._commands[number], record, found)
        self._waits.note(found)

    def _live_on(self, command: Any, record: Record, found: Decoded) -> None:
        """Note what a command has made, ended or changed."""
        parameters = found.parameters or {}
        if command.creates:
            self._create(command, record, found)
        elif command.name == "vkResetDescriptorPool":
            pool = parameters["descriptorPool"]
            entry = self._entry(record, self._living([pool]))
            for kid in list(self._kids(pool)):
                self._bury(kid, entry)
        elif command.name == "vkResetCommandPool":
            for kid in self._kids(parameters["commandPool"]):
                kid.recording = []
        elif _victims(command):
            self._end(record, _ids(parameters, _victims(command)))
        else:
            self._change(command, record, found)

    def _create(self, command: Any, record: Record, found: Decoded) -> None:
        parameters = found.parameters or {}
        made = _ids(parameters, [f for f in command.fields if f.output and f.kind == "handle"])
        if all(each in self._alive for each in made):
            return  # asked for again: physical devices, queues
        uses = self._living(set(handles(parameters, command)) - set(made))
        uses += self._living(
            ("resource", chained["resourceId"])
            for name, chained in (parameters.get("pAllocateInfo") or {}).get("pNext") or []
            if name == "VkImportMemoryResourceInfoMESA"
        )
        first = parameters.get(command.fields[0].name)
        owner = [first] if command.fields[0].kind == "handle" else []
        parents = self._living([*owner, *_pools(parameters)])
        self._make(record, made, uses, parents)

    def _change(self, command: Any, record: Record, found: Decoded) -> None:
        """Note what changes objects without making or ending one."""
        parameters, name = found.parameters or {}, command.name
        key: Any = None
        if name in BINDS:
            infos = parameters.get("pBindInfos") or [parameters]
            changed = [info.get(BINDS[name]) or 0 for info in infos]
        elif name == "vkUpdateDescriptorSets":
            self._update(record, parameters)
            return
        elif name == "vkQueueBindSparse":
            self._bind_sparse(record, parameters)
            return
        elif name in ("vkSetEvent", "vkResetEvent"):
            changed, key = [parameters["event"]], "event"
        elif name == "vkResetQueryPool":
            changed = [parameters["queryPool"]]
            key = (parameters["firstQuery"], parameters["queryCount"])
        elif name in _LAYOUTS or name in ASKS:
            key = found.data
            changed = [next(iter(handles(parameters, command)), 0)]
            if "Address" in name or name in _LAYOUTS:
                changed = list(handles(parameters, command))[1:2]
        else:
            return
        uses = self._living(handles(parameters, command))
        self._attach(record, self._living(changed), uses, key)

    def _update(self, record: Record, parameters: dict[str, Any]) -> None:
        entry = self._entry(
            record,
            self._living(handles(parameters, codec().model.commands["vkUpdateDescriptorSets"])),
        )
        both = (parameters.get("pDescriptorWrites") or []) + (
            parameters.get("pDescriptorCopies") or []
        )
        for each in both:
            for life in self._living([each["dstSet"]]):
                key = (each["dstBinding"], each["dstArrayElement"], each["descriptorCount"])
                life.keyed[key] = entry

    def _bind_sparse(self, record: Record, parameters: dict[str, Any]) -> None:
        """Note what memory parts of buffers and images have, without who waits for that."""
        changed = []
        for info in parameters.get("pBindInfo") or []:
            info |= {"pNext": [], "waitSemaphoreCount": 0, "pWaitSemaphores": None}
            info |= {"signalSemaphoreCount": 0, "pSignalSemaphores": None}
            for name in ("pBufferBinds", "pImageOpaqueBinds", "pImageBinds"):
                changed += [each.get("buffer") or each.get("image") for each in info[name] or []]
        parameters["fence"] = 0
        data = COMMAND_BODY.pack(0, 0, 0) + codec().encode("vkQueueBindSparse", parameters)
        command = codec().model.commands["vkQueueBindSparse"]
        uses = self._living(handles(parameters, command))
        self._attach(record._replace(body=data, flags=0), self._living(changed), uses, None)

    # Command buffers.

    def _record(self, number: int, record: Record) -> None:
        """Note a command that goes into a command buffer."""
        if len(record.body) < _FIRST_HANDLE + _HANDLE.size:
            return
        buffer = self._alive.get(_HANDLE.unpack_from(record.body, _FIRST_HANDLE)[0])
        if buffer is None:
            return
        name = self._commands[number].name
        if name == "vkBeginCommandBuffer":
            buffer.begun = decode(self._serial, record)
            buffer.recording = [(self._serial, record)]
        elif name == "vkResetCommandBuffer":
            buffer.recording = []
        elif buffer.recording:
            buffer.recording.append((self._serial, record))

    def _recorded(self) -> list[_Life]:
        """Command buffers that can be submitted still: all that they name is as it was."""
        able: dict[int, int] = {}
        candidates = [life for life in self._alive.values() if life.recording]
        # Those that others execute were recorded before them.
        for life in sorted(candidates, key=lambda each: each.recording[0][0]):
            if self._is_one_time(life) and self._waits.was_submitted(life.id, life.recording[0][0]):
                continue
            if all(self._is_good(serial, record, able) for serial, record in life.recording):
                able[life.id] = life.recording[-1][0]
        return [life for life in candidates if life.id in able]

    @staticmethod
    def _is_one_time(life: _Life) -> bool:
        begun = (life.begun.parameters or {}) if life.begun is not None else {}
        return bool(
            ((begun.get("pBeginInfo") or {}).get("flags") or 0)
            & VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT
        )

    def _is_good(self, serial: int, record: Record, able: dict[int, int]) -> bool:
        found = decode(serial, record)
        command = codec().model.commands.get(found.name)
        if command is None or found.parameters is None:
            return False
        if found.name == "vkCmdExecuteCommands":
            others = found.parameters.get("pCommandBuffers") or []
            if not all(able.get(each, serial) < serial for each in others):
                return False
        return all(
            each == 0 or (each in self._alive and self._alive[each].entries[0].serial < serial)
            for each in handles(found.parameters, command)
        )

    # Lives.

    def _living(self, ids: Iterable[Any]) -> list[_Life]:
        return [self._alive[each] for each in ids if each in self._alive]

    def _kids(self, id_: int) -> set[_Life]:
        life = self._alive.get(id_)
        return life.kids if life is not None else set()

    def _entry(self, record: Record, uses: list[_Life]) -> _Entry:
        return _Entry(self._serial, _earlier(record), uses)

    def _make(
        self, record: Record, made: list[Any], uses: list[_Life], parents: Iterable[_Life] = ()
    ) -> None:
        entry = self._entry(record, uses)
        for id_ in made:
            if not id_:
                continue
            if id_ in self._alive:
                self._bury(self._alive[id_], None)
            life = _Life(id_, list(parents))
            life.entries.append(entry)
            self._alive[id_] = life
            for parent in parents:
                parent.kids.add(life)
        # All of them come with it, and those that are gone have to go again.
        entry.uses += self._living(made)

    def _attach(self, record: Record, changed: list[_Life], uses: list[_Life], key: Any) -> None:
        entry = self._entry(record, uses)
        for life in changed:
            if key is None:
                life.entries.append(entry)
            else:
                life.keyed[key] = entry

    def _end(self, record: Record, ids: list[Any]) -> None:
        ended = self._living(ids)
        entry = self._entry(record, [*ended, *(each for life in ended for each in life.parents)])
        for life in ended:
            self._bury(life, entry)

    def _bury(self, life: _Life, entry: _Entry | None) -> None:
        """Take it out of what lives; entry: what has ended it, None: what it lay in."""
        if self._alive.get(life.id) is life:
            del self._alive[life.id]
        self._waits.forget(life.id)
        life.end = life.end or entry
        life.recording = []
        for parent in life.parents:
            parent.kids.discard(life)
        for kid in list(life.kids):
            self._bury(kid, entry)


_INTO_BUFFERS = ("vkBeginCommandBuffer", "vkEndCommandBuffer", "vkResetCommandBuffer")
_CHANGES = frozenset(
    {
        *BINDS,
        *_LAYOUTS,
        *ASKS,
        "vkUpdateDescriptorSets",
        "vkQueueBindSparse",
        "vkSetEvent",
        "vkResetEvent",
        "vkResetQueryPool",
        "vkResetCommandPool",
    }
)


def _victims(command: Any) -> list[Any]:
    """The parameters that say what a command ends."""
    return [field for field in command.fields if field.victim]


def _has_failed(command: Any, found: Decoded) -> bool:
    """Whether the driver has refused a command; one that was not answered counts as done."""
    result = int.from_bytes(found.reply[4:8], "little", signed=True)
    return bool(command.result == "VkResult" and result < 0)


def _earlier(record: Record) -> bytes:
    return b"".join(cut(record._replace(flags=record.flags | EARLIER)))


def _ids(parameters: dict[str, Any], fields: Iterable[Any]) -> list[Any]:
    """The objects in these parameters."""
    found: list[Any] = []
    for field in fields:
        value = parameters.get(field.name)
        found += value if isinstance(value, list) else [value or 0]
    return found


def _pools(parameters: dict[str, Any]) -> list[Any]:
    """The pool that what is made belongs to."""
    info = parameters.get("pAllocateInfo") or {}
    return [info[name] for name in ("descriptorPool", "commandPool") if name in info]
