"""Plays the guest's part: tells a context what is in a recording."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hesper.guest import Context, ResourceError
from hesper.kernel import port
from hesper.kernel.errors import ProtocolError
from hesper.protocol.codec import Reader as WireReader
from hesper.trace import limits
from hesper.trace.blobs import Blobs
from hesper.trace.commands import (
    NOTED,
    TRANSPORT,
    depends_on_time,
    is_question,
    leaves_work_alone,
)
from hesper.trace.decoded import UNREADABLE, Decoded, codec, decode, name_of
from hesper.trace.kinds import Kinds
from hesper.trace.known import Known
from hesper.trace.layouts import insist, relent
from hesper.trace.missing import Missing
from hesper.trace.offers import REFUSALS, Offers, limit
from hesper.trace.outcome import Outcome, ReplayError, ReplayOptions
from hesper.trace.picture import WANTS
from hesper.trace.places import FREES, Places
from hesper.trace.plan import BINDS, is_tiled
from hesper.trace.records import (
    EARLIER,
    FAILED,
    FENCE_BODY,
    REPLIED,
    Kind,
    Reader,
    Record,
    command_of,
)
from hesper.trace.settling import LONGEST, DeviceLostError, Settling
from hesper.trace.shown import ReplayedScreens
from hesper.trace.submits import SUBMISSIONS
from hesper.trace.translate import ASKS, Translation, again
from hesper.trace.work import WAITS_FOR_EVENTS

if TYPE_CHECKING:
    from hesper.isolation.driver import OpenDriver
    from hesper.trace.plan import Plan

REPLIES = 0xFFFFFFF1
"""Id of the resource for replies: no guest counts so far."""
REPLY_BYTES = 64 << 20
_ANSWER = (1).to_bytes(4, "little")
"""Flags of a command that is to be answered."""


class Replay:
    """One replay.  Life: made, `run`, `close`d."""

    def __init__(
        self,
        host: OpenDriver,
        options: ReplayOptions,
        tell: Callable[[int, str], None],
        plan: Plan | None = None,
        says: Callable[[str], None] = lambda _: None,
    ) -> None:
        """On `host`.  tell: is told number and name of commands that may be the last.

        plan: of the same recording, where the driver may be another.
        says: is told what is waited for, where that takes long.
        """
        self._allocations = plan.allocations if plan is not None else {}
        self._layouts = plan.layouts if plan is not None else {}
        self.outcome = Outcome()
        self._options = options
        self._tell = tell
        self._context = Context(
            host.driver,
            name="replay",
            on_fatal=self._fatal,
            limits=host.limits,
            profile=host.profile,
            patience=host.patience,
            cache_key=host.cache_key,
            emulates=host.emulates,
        )
        self._translation = Translation()
        self._missing = Missing()
        self._blobs = Blobs(self._context, options, self.outcome)
        self._places = Places(self._translation, self._ask, self._blobs)
        self._offers = Offers(self._ask)
        self._kinds = Kinds(self._ask)
        self._limits = limits.Limits()
        self._tiled: set[int] = set()
        self._screens = ReplayedScreens()
        self._settling = Settling(self._context, self.outcome, says)
        self._known = Known()
        self._is_closing = False
        fd = self._context.create_blob(REPLIES, 0, REPLY_BYTES, 0)
        self._replies = mmap.mmap(fd, REPLY_BYTES)
        stream = {"resourceId": REPLIES, "offset": 0, "size": REPLY_BYTES}
        self._submit(codec().encode("vkSetReplyCommandStreamMESA", {"pStream": stream}))
        self._seek = codec().encode("vkSeekReplyCommandStreamMESA", {"position": 0})

    def close(self) -> None:
        """Free everything."""
        self._blobs.close()
        self._replies.close()
        self._is_closing = True  # the replies' memory is used to the end
        self._context.close()

    def _fatal(self, reason: str) -> None:
        if not self._is_closing:
            self.outcome.fatal = self.outcome.fatal or reason

    def run(self, reader: Reader) -> Outcome:
        """Replay.  Raises `RecordingError`, `ReplayError`."""
        begun = time.monotonic()
        base: int | None = None
        number, offset = -1, 0
        try:
            for record in reader:
                offset = record.offset
                if reader.lacks_beginning:
                    raise ReplayError("the recording lacks its beginning")
                number += record.kind == Kind.COMMAND
                if number == self._options.until:
                    break
                if self._options.real and not record.flags & EARLIER:
                    base = record.time if base is None else base
                    self._pause(record, (record.time - base) / 1e9 - (time.monotonic() - begun))
                self._play(number, record)
            else:
                self._settling.settle()
                self._blobs.verify(self._places)
            self._settling.settle()
            self._blobs.look()
        except (ProtocolError, DeviceLostError) as error:
            self.outcome.fatal = self.outcome.fatal or str(error)
        except (*UNREADABLE, ResourceError, OSError, OverflowError) as error:
            # Resources of sizes that no guest could have had, values that no guest would send.
            raise ReplayError(f"byte {offset}, after command {number}: {error}") from None
        self.outcome.seconds = time.monotonic() - begun
        if self._options.picture and self.outcome.picture is None:
            self.outcome.picture = self._screens.picture
        if self.outcome.fatal:
            self.outcome.fatal = f"command {number}, byte {offset}: {self.outcome.fatal}"
        self.outcome.translated = {
            "allocations": self._translation.allocations,
            "buffers and images moved": self._places.moved,
            "queue families": len(self._translation.queues.families),
            "queues": len(self._translation.queues.renamed),
        }
        return self.outcome

    def _pause(self, record: Record, seconds: float) -> None:
        """Let as much time go by as went by then.  Raises `ReplayError`."""
        if seconds > LONGEST:
            raise ReplayError(
                f"byte {record.offset}: {seconds:.0f} s went by before that: replay it with"
                " --speed max"
            )
        self._settling.pause(seconds)

    def _play(self, number: int, record: Record) -> None:
        if record.kind == Kind.COMMAND:
            self._command(number, record)
            self._known.passed(record)
        elif record.kind == Kind.MEMORY:
            self._settling.settle()
            self._blobs.write(record, is_done=self._known.is_all)
        elif record.kind == Kind.LAST:
            self._blobs.expect(record)
        elif record.kind == Kind.BLOB:
            self._settling.settle()
            self._blobs.make(record, self._missing)
        elif record.kind == Kind.IMPORT:
            self._blobs.adopt(record)
        elif record.kind == Kind.GONE:
            self._settling.settle()
            self._blobs.drop(record, self._places)
        elif record.kind in (Kind.FENCE, Kind.RETIRED):
            timeline, _, number = FENCE_BODY.unpack_from(record.body)
            note = self._known.fence if record.kind == Kind.FENCE else self._known.retired
            note(timeline, number)
        elif record.kind == Kind.PICTURE:
            self._screens.take(record)

    # Commands.

    def _command(self, number: int, record: Record) -> None:
        data = command_of(record).data
        name = name_of(data)
        if name in TRANSPORT or record.flags & FAILED:
            self.outcome.left_out += 1
            return
        if not name.startswith("vkCmd"):
            self._tell(number, name)
        self._settling.waits_for_events |= name in WAITS_FOR_EVENTS
        if not leaves_work_alone(name):
            self._settling.settle()
        then: Decoded | None = None
        if self._wants(name, record):
            then = decode(number, record)
            self._known.note(then)
            is_thinned = self._thinned(then)
            found = None if self._lacks(then) else self._translated(then)
            if found is None:
                self.outcome.left_out += 1
                return
            data = again(then) if is_thinned else found
            self._note(then)
        self._do(number, record, data, then)
        self.outcome.commands += 1
        if name in SUBMISSIONS:
            self.outcome.submissions += 1
            self._settling.submitted(number)

    def _do(self, number: int, record: Record, data: bytes, then: Decoded | None) -> None:
        """Tell a command, and look at what is answered."""
        name = name_of(data)
        description = codec().model.commands.get(name)
        if record.flags & REPLIED:
            # One submission: nothing may come between.
            self._submit(self._seek + data)
            self._compare_reply(number, name, record, then)
        elif description is not None and description.creates and data[4:8] == bytes(4):
            # The guest did not ask whether it was made.
            self._submit(self._seek + data[:4] + _ANSWER + data[8:])
            result = int.from_bytes(self._replies[4:8], "little", signed=True)
            if then is not None and result < 0 and self._relents(then):
                data = again(then)
                self._submit(self._seek + data[:4] + _ANSWER + data[8:])
                result = int.from_bytes(self._replies[4:8], "little", signed=True)
            self._made(number, record, then, is_here=result >= 0)
        else:
            self._submit(data)
        if then is not None and name in FREES:
            self._places.freed(then)

    def _made(self, number: int, record: Record, then: Decoded | None, *, is_here: bool) -> None:
        """Take note of what was made then, and whether it is here."""
        if self._missing or not is_here:
            self._missing.made(then or decode(number, record), is_here=is_here)

    def _lacks(self, then: Decoded) -> bool:
        """Whether a command cannot be told here, for want of it or of what it names."""
        if is_question(then.name) and not self._offers.has(then):
            self.outcome.answers_other += 1
            return True
        if self._missing and self._missing.lacks(then):
            self.outcome.without += 1
            return True
        misplaced = self._limits.broken(then) if self._limits.are_less else []
        for limit_ in misplaced:
            self.outcome.misplaced[limit_] = self.outcome.misplaced.get(limit_, 0) + 1
        if misplaced:
            self._missing.leave(then)
            self.outcome.without += 1
            return True
        is_asked = then.name == "vkCreateImage" and self._translation.is_other
        if is_asked and not self._kinds.has(then):
            self._missing.made(then, is_here=False)
            self.outcome.without += 1
            self.outcome.differ(f"command {then.number}, {then.name}: there are no such images")
            return True
        return False

    def _thinned(self, then: Decoded) -> bool:
        """Take out of a submission what was not made."""
        is_thinned = bool(self._missing) and self._missing.thin(then)
        self.outcome.without += is_thinned
        return is_thinned

    def _translated(self, then: Decoded) -> bytes | None:
        """The command's bytes for this driver; None: it is not to be told."""
        if then.name == "vkAllocateMemory":
            found = self._allocations.get(then.number)
            data = self._translation.apply(then, self._places.wants(found))
            self._places.allocated(then, found)
            return data
        if then.name in BINDS:
            data, lost = self._places.bind(then, self._tiled)
            self._missing.lose(lost)
            self.outcome.without += len(lost)
            return data
        data = self._translation.apply(then)
        if then.name == "vkCreateImage" and then.number in self._layouts:
            insist(then, *self._layouts[then.number])
            return again(then)
        return data

    def _relents(self, then: Decoded) -> bool:
        """Have an image lie as this driver likes, where it was to lie as it did then."""
        return then.number in self._layouts and relent(then)

    def _wants(self, name: str, record: Record) -> bool:
        """Whether a command has to be decoded."""
        return (
            self._translation.is_needed
            or bool(self._missing)
            or name in NOTED
            or (self._limits.are_less and name in limits.PLACES)
            or is_question(name)
            or (name in ASKS and bool(record.flags & REPLIED))
            or (self._options.picture and name in WANTS)
        )

    def _note(self, then: Decoded) -> None:
        parameters = then.parameters or {}
        self._settling.work.note(then)
        if self._options.picture and then.name in WANTS:
            self._blobs.pictures.note(then)
        if then.name == "vkGetDeviceQueue2":
            for name, chained in (parameters.get("pQueueInfo") or {}).get("pNext") or []:
                if name == "VkDeviceQueueTimelineInfoMESA":
                    self._settling.queue(parameters.get("pQueue") or 0, chained["ringIdx"])
        elif then.name == "vkCreateDevice":
            self._kinds.device(parameters)
        elif is_tiled(then.name, parameters):
            self._tiled.add(parameters.get("pImage") or 0)
        elif then.name == "vkCreateBuffer":
            info = parameters.get("pCreateInfo") or {}
            self._translation.sizes[parameters.get("pBuffer") or 0] = info.get("size", 0)

    def _ask(
        self, name: str, asked: dict[str, Any], room: int = 1 << 19
    ) -> tuple[int, dict[str, Any]]:
        """Tell a command of ours; its result and outputs, of up to `room` bytes."""
        self._submit(self._seek + codec().encode(name, asked, reply=True))
        _, result, outputs = codec().decode_reply(WireReader(self._replies[:room]), asked)
        return result, outputs

    def _submit(self, data: bytes) -> None:
        port.submit(self._context.port, data)

    def _compare_reply(self, number: int, name: str, record: Record, then: Decoded | None) -> None:
        recorded = command_of(record).reply
        reply = self._replies[: max(len(recorded), 1 << 16)]
        if then is not None and name in ASKS:
            self._translation.learn(then, reply)
        elif then is not None and name in limits.ASKS:
            self._limits.learn(then, reply)
            self._translation.is_other |= self._limits.is_other
        if codec().model.commands[name].result != "VkResult" or depends_on_time(name):
            return
        was, now = (int.from_bytes(each[4:8], "little", signed=True) for each in (recorded, reply))
        if name == "vkCreateDevice" and then is not None and was == 0 and now in REFUSALS:
            self.outcome.lack(limit(then.parameters or {}, self._ask))
            self._submit(self._seek + again(then))
            now = int.from_bytes(self._replies[4:8], "little", signed=True)
        elif then is not None and now < 0 <= was and self._relents(then):
            self._submit(self._seek + again(then))
            now = int.from_bytes(self._replies[4:8], "little", signed=True)
        if was >= 0 and codec().model.commands[name].creates:
            self._made(number, record, then, is_here=now >= 0)
        if was == now:
            self.outcome.results_same += 1
        elif is_question(name):
            self.outcome.answers_other += 1
        else:
            self.outcome.results_other += 1
            self.outcome.differ(f"command {number}, {name}: VkResult {now}, was {was}")
