"""Commands that Python decides about; `handlers.pyi`."""

import traceback

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from hesper_commands cimport (
    COMMAND_vkAllocateMemory, VkMemoryAllocateInfo, vkAllocateMemory_parameters)

from hesper.kernel.core.caches cimport CACHE_TAG as CORE_CACHE_TAG
from hesper.kernel.core.created cimport New, restore_ids
from hesper.kernel.core.dead cimport command_result
from hesper.kernel.core.dispatch cimport go_whole_way
from hesper.kernel.core.driver cimport index_of
from hesper.kernel.core.failures cimport is_worth_telling
from hesper.kernel.core.objects cimport Entry, object_kin
from hesper.kernel.core.state cimport (
    ERROR_FUNCTION, ERROR_HANDLER, ERROR_NONE, Core, DeviceState, Row, Stream, fail)
from hesper.kernel.core.tables cimport *
from hesper.kernel.ledger cimport Ledger
from hesper.kernel.messages cimport describe
from hesper.kernel.objects cimport ObjectTable
from hesper.kernel.runtime cimport (
    CoreRef, command_call, command_charge, command_forget, command_prepare, command_register,
    command_settle)
from hesper.kernel.shm cimport Region
from hesper.kernel.views cimport Memory, View, write_scalar
from hesper.kernel.vulkan cimport Vulkan, result_of

from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import command_indices


CACHE_TAG = CORE_CACHE_TAG


cdef class Handlers:
    """Python's side of the commands that want it, and who hears of failures."""

    def __init__(self, CoreRef ref not None, Vulkan vulkan not None, ObjectTable objects not None,
                 dict rings, Ledger ledger not None, dict handlers, asleep, on_notice):
        self.ref = ref
        self.ledger = ledger
        self.vulkan = vulkan
        self.objects = objects
        self.rings = rings
        self.on_notice = on_notice
        self.by_index = [None] * hesper_command_count
        for name, handler in handlers.items():
            index = command_indices[name]
            self.by_index[index] = handler
            ref.core.rows[<uint32_t>index].handled = name not in asleep
        ref.core.handlers = <void *>self
        ref.core.up.handler = run_handler
        ref.core.up.command_failed = tell_driver_failure
        ref.core.up.dropped = tell_dropped
        ref.core.up.device_lost = tell_lost
        ref.core.up.limit_reached = tell_limits

    def wake(self, names):
        cdef Core *core = self.ref.core
        cdef uint32_t index
        for name in names:
            index = command_indices[name]
            if self.by_index[index] is None:
                raise KeyError(name)
            core.rows[index].handled = True
            core.rows[index].override = NULL
            go_whole_way(core, index)

    cdef int tell_limits(self) except -1:
        """Say which limits were reached that nobody has heard of."""
        for name, most in self.ledger.untold():
            self.notice("limit reached", {"limit": name, "most": most, "option": f"--limit {name}"})
        return 0

    cdef int notice(self, str event, dict facts) except -1:
        """Tell whoever wants to know; what they raise ends here."""
        if self.on_notice is None:
            return 0
        try:
            self.on_notice(event, facts)
        except Exception:
            traceback.print_exc()
        return 0


cdef class Call:
    cdef Stream *stream
    cdef Memory memory
    cdef New new
    cdef bint prepared
    cdef bint finished
    cdef bint forgotten
    cdef Handlers handlers
    cdef readonly View args
    cdef readonly object ring
    cdef public object reason

    @property
    def name(self):
        return self.stream.command.name.decode()

    @property
    def result(self):
        return result_of(self.stream.command, self.stream.parameters)

    @result.setter
    def result(self, value):
        cdef const hesper_command *c = self.stream.command
        if c.result == RESULT_VOID:
            raise TypeError(f"{self.name} returns nothing")
        write_scalar(self.stream.parameters + c.result_offset, 8 if c.result == RESULT_U64 else 4,
                     0, value)

    @property
    def table(self):
        cdef Entry *first = self.stream.first
        if first == NULL:
            return self.handlers.vulkan.globals
        return self.handlers.objects.table_of(first.table)

    @property
    def device(self):
        cdef Stream *s = self.stream
        if s.first == NULL or s.device == 0:
            return 0
        return object_kin(s.first).device_id

    def id(self, parameter):
        cdef View args = self.args
        cdef const hesper_field *f = args.field(parameter)
        cdef uint64_t handle
        if f.kind != KIND_HANDLE or f.shape != SHAPE_VALUE:
            raise TypeError(f"{parameter} of {self.name} is no handle")
        handle = (<uint64_t *>(args.at + f.offset))[0]
        if f.offset == 0 and self.stream.first != NULL:
            return self.stream.first_id
        if self.stream.victim_count == 1 and handle:
            return self.stream.victims[0].id
        return self.handlers.objects.id_of(f.ref, handle, self.stream.device)

    cdef int prepare(self) except -1:
        if self.prepared or self.stream.command.new_type == 0:
            return 0
        self.prepared = True
        if command_prepare(self.stream, &self.new):
            raise ProtocolError(describe(self.stream))
        return 0

    @property
    def new_ids(self):
        self.prepare()
        return [self.new.ids[i] for i in range(self.new.count)]

    @property
    def new_handles(self):
        self.prepare()
        return [self.new.handles[i] for i in range(self.new.count)]

    def set_new_handles(self, handles):
        self.prepare()
        if len(handles) > self.new.count:
            raise ValueError(f"{len(handles)} handles for {self.new.count} ids")
        for i, handle in enumerate(handles):
            self.new.handles[i] = handle

    def invoke(self):
        cdef Stream *s = self.stream
        cdef hesper_function function
        cdef int failed = 0
        self.prepare()
        self.forget()
        if s.command.new_type and not self.charge():
            return self.result
        if s.first != NULL:
            with nogil:
                failed = command_call(s)
        else:
            function = self.handlers.vulkan.globals.functions[index_of(s)]
            if function == NULL:
                failed = fail(s, ERROR_FUNCTION, NULL, 0)
            else:
                with nogil:
                    s.command.call(function, s.parameters)
        if failed:
            raise ProtocolError(describe(s))
        return self.result

    def finish(self, Region region=None):
        cdef Stream *s = self.stream
        if self.finished:
            return
        self.finished = True
        self.forget()
        if s.command.new_type:
            self.prepare()
            self.new.region = region.owned() if region is not None else NULL
            if command_register(s, &self.new):
                raise ProtocolError(describe(s))
            if region is not None:
                region.take()

    cdef int forget(self) except -1:
        """Forget what the command destroys: before the driver does, so that no ring can twice."""
        if not self.forgotten:
            self.forgotten = True
            if command_forget(self.stream):
                raise ProtocolError(describe(self.stream))
        return 0

    cdef bint charge(self) except -1:
        """Take what it costs that the command is to make; False: it has failed for that."""
        cdef bint fits
        if self.new.charged:
            return True
        with nogil:
            fits = command_charge(self.stream, &self.new)
        return fits

    cdef int leave_dead(self, uint32_t index) except -1:
        """The command has failed: leave dead objects, and say why."""
        cdef Stream *s = self.stream
        if s.command.new_type and not self.finished and s.first != NULL:
            self.prepare()
            if command_register(s, &self.new):
                raise ProtocolError(describe(s))
        if self.reason is not None and is_worth_telling(s, index):
            tell_failure(s, index, self.reason)
        return 0

    def run(self):
        self.invoke()
        self.finish()
        return self.result


cdef int run_handler(Stream *s, uint32_t index) noexcept nogil:
    """Call the Python handler of the current command; -1 with the error noted."""
    with gil:
        return handle(s, index)


cdef int handle(Stream *s, uint32_t index) noexcept:
    cdef Handlers handlers = <Handlers>s.core.handlers
    cdef Memory memory = Memory.__new__(Memory)
    cdef Call call = Call.__new__(Call)
    cdef View args = View.__new__(View)
    s.core.handler_calls += 1
    memory.arena = &s.arena
    memory.alive = True
    args.memory = memory
    args.at = s.parameters
    args.struct_index = -1
    args.first_field = s.command.fields
    args.field_count = s.command.field_count
    args.name = s.command.name
    call.stream = s
    call.memory = memory
    call.args = args
    call.handlers = handlers
    call.ring = handlers.rings.get(s.ring.id) if s.ring != NULL else None
    try:
        handlers.by_index[index](call)
        if command_result(s) < 0:
            call.leave_dead(index)
        if call.prepared:
            restore_ids(&call.new)
        return 0
    except ProtocolError as error:
        note_reason(s, str(error))
    except BaseException as error:
        traceback.print_exc()
        note_reason(s, f"internal error in the handler: {type(error).__name__}: {error}")
    finally:
        if call.prepared:
            command_settle(s, &call.new)
        memory.alive = False
    return -1


cdef void note_reason(Stream *s, str reason):
    """Keep what a handler said, for the message about the poisoned context."""
    cdef bytes text = reason.encode("utf-8", "replace")[:sizeof(s.core.reason) - 1]
    if s.error == ERROR_NONE:
        memcpy(s.core.reason, <const char *>text, len(text))
        s.core.reason[len(text)] = 0
    fail(s, ERROR_HANDLER, NULL, 0)


cdef void tell_driver_failure(Stream *s, uint32_t index) noexcept nogil:
    """Say that the driver has refused a command."""
    with gil:
        tell_failure(s, index, "the driver said so")


cdef int tell_failure(Stream *s, uint32_t index, str reason) except -1:
    cdef Handlers handlers = <Handlers>s.core.handlers
    cdef const VkMemoryAllocateInfo *info
    facts = {"command": s.command.name.decode(), "result": command_result(s), "reason": reason}
    if index == COMMAND_vkAllocateMemory:
        info = (<vkAllocateMemory_parameters *>s.parameters).pAllocateInfo
        if info != NULL:
            facts["size"] = info.allocationSize
            facts["memory_type"] = info.memoryTypeIndex
    return handlers.notice("command failed", facts)


cdef void tell_dropped(Stream *s, const hesper_relation *relation) noexcept nogil:
    """Say that what a command says too much is left out: once for each command."""
    cdef Row *row = &s.core.rows[s.command - &hesper_commands[0]]
    if row.drop_told:
        return
    row.drop_told = True
    with gil:
        (<Handlers>s.core.handlers).notice(
            "left out what breaks a relation",
            {"command": s.command.name.decode(), "relation": relation.text.decode()})


cdef void tell_limits(Core *core) noexcept nogil:
    with gil:
        (<Handlers>core.handlers).tell_limits()


cdef void tell_lost(Core *core, DeviceState *device) noexcept nogil:
    with gil:
        (<Handlers>core.handlers).notice(
            "device lost", {"device": device.id, "command": device.lost_in.decode()})
