# Commands that Python decides about.

cdef class Object:
    cdef readonly uint64_t id
    cdef readonly str type
    cdef readonly uint64_t handle
    cdef readonly uint64_t device
    cdef readonly uint64_t parent

    def __repr__(self):
        return f"<{self.type} {self.id}>"


cdef Object object_snapshot(Entry *entry):
    cdef Kin *kin = object_kin(entry)
    cdef Object found = Object.__new__(Object)
    found.id = kin.id
    found.type = hesper_handle_names[(entry.type & ~<uint32_t>DEAD) - 1].decode()
    found.handle = entry.handle
    found.device = kin.device_id
    found.parent = kin.parent_id
    return found


cdef class Call:
    cdef Stream *stream
    cdef Memory memory
    cdef New new
    cdef bint prepared
    cdef bint finished
    cdef readonly View args
    cdef readonly Engine engine
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
            return self.engine.vulkan.globals
        return self.engine.table_of(first.table)

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
            return self.stream.victims[0]
        return self.engine.id_of(f.ref, handle, self.stream.device)

    cdef int prepare(self) except -1:
        if self.prepared or self.stream.command.new_type == 0:
            return 0
        self.prepared = True
        if prepare_new(self.stream, &self.new):
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
        cdef uint32_t index = <uint32_t>(s.command - &hesper_commands[0])
        self.prepare()
        if s.first != NULL:
            function = host_function(s)
        else:
            function = self.engine.vulkan.globals.functions[index]
            if function == NULL:
                fail(s, ERROR_FUNCTION, NULL, 0)
        if function == NULL:
            raise ProtocolError(describe(s))
        with nogil:
            call_host(s, function)
        return self.result

    def finish(self):
        cdef Stream *s = self.stream
        if self.finished:
            return
        self.finished = True
        if s.command.destroys == 1:
            forget_victims(s)
        elif s.command.destroys == 2:
            clear_pool(s)
        if s.command.new_type:
            self.prepare()
            if register_new(s, &self.new):
                raise ProtocolError(describe(s))

    cdef int fail(self, uint32_t index) except -1:
        """The command has failed: leave dead objects, and say why."""
        cdef Stream *s = self.stream
        if s.command.new_type and not self.finished and s.first != NULL:
            self.prepare()
            if register_new(s, &self.new):
                raise ProtocolError(describe(s))
        if self.reason is not None and is_worth_telling(s, index):
            tell_reason(s, index, self.reason)
        return 0

    def run(self):
        self.invoke()
        self.finish()
        return self.result


cdef int run_handler(Stream *s, uint32_t index) noexcept with gil:
    """Call the Python handler of the current command; -1 with the error noted."""
    cdef Engine engine = <Engine>s.core.engine
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
    call.engine = engine
    call.ring = engine.ring_objects.get(s.ring.id) if s.ring != NULL else None
    try:
        (<list>engine.handlers)[index](call)
        if command_result(s) < 0:
            call.fail(index)
        if call.prepared:
            restore_ids(&call.new)
        return 0
    except ProtocolError as error:
        note_reason(s, str(error))
    except BaseException as error:
        traceback.print_exc()
        note_reason(s, f"internal error in the handler: {type(error).__name__}: {error}")
    finally:
        memory.alive = False
    return -1


cdef void note_reason(Stream *s, str reason):
    """Keep what a handler said, for the message about the poisoned context."""
    cdef bytes text = reason.encode("utf-8", "replace")[:sizeof(s.core.reason) - 1]
    if s.error == ERROR_NONE:
        memcpy(s.core.reason, <const char *>text, len(text))
        s.core.reason[len(text)] = 0
    fail(s, ERROR_HANDLER, NULL, 0)
