"""One command after another: decode, call, register what it made, reply."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkBeginCommandBuffer, COMMAND_vkCmdCopyBuffer, COMMAND_vkCmdCopyQueryPoolResults,
    COMMAND_vkCmdFillBuffer, COMMAND_vkResetCommandBuffer, HANDLE_VkCommandBuffer)

from hesper.kernel.core.arena cimport arena_take
from hesper.kernel.core.created cimport (
    New, clear_pool, forget_victims, prepare_new, register_new, restore_ids)
from hesper.kernel.core.dead cimport command_result, object_break, set_result
from hesper.kernel.core.decode cimport decode, has
from hesper.kernel.core.driver cimport LEFT_FOR_LATER, LEFT_TO_HANDLER, serve
from hesper.kernel.core.encode cimport encode, put_u32, put_u64
from hesper.kernel.core.failures cimport note_failure
from hesper.kernel.core.feedback cimport note_copy, note_fill, note_queries
from hesper.kernel.core.lost cimport answer_lost, device_lose, device_of, settle_if_lost
from hesper.kernel.core.objects cimport DEAD, Entry, object_find
from hesper.kernel.core.platform cimport (
    hesper_copy_words, hesper_count, hesper_load_acquire, hesper_note, hesper_read_u32,
    hesper_read_u64, hesper_replace)
from hesper.kernel.core.progress cimport ring_settle
from hesper.kernel.core.recording cimport recording_begin, recording_charge, recording_settle
from hesper.kernel.core.shares cimport share_wait
from hesper.kernel.core.state cimport (
    ERROR_COMMAND, ERROR_DEAD, ERROR_MEMORY, ERROR_NONE, ERROR_OBJECT, ERROR_REFUSED, ERROR_REPLY,
    ERROR_SHORT, STAGE_DECODE, STAGE_DRIVER, STAGE_HANDLER, STAGE_REPLY, Core, Hot, Row, Stream,
    fail, override_fn)
from hesper.kernel.core.tables cimport *


cdef enum:
    PARAMETER_WORDS = 16        # of a block that `record_words` can fill
    # Of a command that records, on the wire: the command buffer follows the header.
    RECORD_SIZE = COMMAND_HEADER_SIZE + 8


cdef inline int reply(Stream *s) noexcept nogil:
    """Write the reply of the command that has just run."""
    cdef const hesper_command *c = s.command
    if s.reply_start == NULL:
        return fail(s, ERROR_REPLY, NULL, 0)
    if put_u32(s, <uint32_t>c.number):
        return -1
    if c.result == RESULT_U64:
        if put_u64(s, (<uint64_t *>(s.parameters + c.result_offset))[0]):
            return -1
    elif c.result != RESULT_VOID:
        if put_u32(s, (<uint32_t *>(s.parameters + c.result_offset))[0]):
            return -1
    s.core.replies += 1
    return encode(s, &hesper_ops[c.out], c.out_count, s.parameters)


cdef inline Entry *command_buffer(Stream *s) noexcept nogil:
    """The command buffer whose id follows the header at the cursor, or null."""
    cdef uint64_t id = hesper_read_u64(s.cursor + COMMAND_HEADER_SIZE)
    cdef Entry *entry = s.recorded
    # Its entry may be another one's by now.
    if entry != NULL and entry.extra == id and entry.type == HANDLE_VkCommandBuffer:
        return entry
    recording_settle(s)
    entry = object_find(&s.core.objects, id)
    if entry == NULL or entry.type != HANDLE_VkCommandBuffer:
        return NULL
    s.recorded = entry
    return entry


cdef inline int record_words(Stream *s, const Hot *hot) noexcept nogil:
    """The command buffer's id, then `hot.words` bytes that lie in C as on the wire."""
    cdef uint64_t parameters[2 * PARAMETER_WORDS]   # the compiler cannot see that half would do
    cdef Entry *entry
    cdef hesper_function function
    if not has(s, RECORD_SIZE + hot.words):
        return run_whole(s, hot.index, 0)
    entry = command_buffer(s)
    function = entry.table[hot.index] if entry != NULL else NULL
    if function == NULL:
        return run_whole(s, hot.index, 0)
    parameters[0] = entry.handle
    hesper_copy_words(&parameters[1], s.cursor + RECORD_SIZE, hot.words)
    s.cursor += RECORD_SIZE + hot.words
    hesper_note(&s.stage, STAGE_DRIVER)
    hot.call(function, parameters)
    hesper_count(&s.commands, 1)
    return 0


cdef inline int record(Stream *s, const Hot *hot) noexcept nogil:
    """Decode and call: nothing is created, destroyed or answered."""
    cdef const hesper_command *c
    cdef Entry *entry
    cdef hesper_function function
    if not has(s, RECORD_SIZE):
        return run_whole(s, hot.index, 0)
    if hot.note != NULL:
        hot.note(s)
    entry = command_buffer(s)
    function = entry.table[hot.index] if entry != NULL else NULL
    if function == NULL:
        return run_whole(s, hot.index, 0)
    c = &hesper_commands[hot.index]
    s.command = c
    s.first = entry
    s.device = entry.device
    s.depth = 0
    s.parameters = <uint8_t *>arena_take(&s.arena, c.size)
    if s.parameters == NULL:
        return fail(s, ERROR_MEMORY, NULL, c.size)
    (<uint64_t *>s.parameters)[0] = entry.handle
    s.begin = s.cursor
    s.cursor += RECORD_SIZE
    if decode(s, &hesper_ops[c.in_ + 1], c.in_count - 1, s.parameters):
        return run_lenient(s, hot.index, 0) if s.error == ERROR_DEAD else -1
    hesper_note(&s.stage, STAGE_DRIVER)
    hot.call(function, s.parameters)
    hesper_count(&s.commands, 1)
    return 0


cdef inline int run_command(Stream *s) noexcept nogil:
    """Run the command at the cursor: 0, FLAG_REPLY when it was answered, -1 on an error."""
    cdef uint64_t header
    cdef uint32_t number
    cdef const Hot *hot
    if not has(s, COMMAND_HEADER_SIZE):
        s.command = NULL
        return fail(s, ERROR_SHORT, NULL, COMMAND_HEADER_SIZE)
    header = hesper_read_u64(s.cursor)
    number = <uint32_t>header
    if number >= hesper_number_count or hesper_command_index[number] == NO_COMMAND:
        s.command = NULL
        return fail(s, ERROR_COMMAND, NULL, number)
    hot = &s.core.hot[number]
    hesper_note(&s.number, number)
    hesper_note(&s.stage, STAGE_DECODE)
    if not header >> 32 & FLAG_REPLY:
        if hot.words:
            return record_words(s, hot)
        if hot.records:
            return record(s, hot)
    return run_whole(s, hot.index, <uint32_t>(header >> 32))


cdef inline int run_whole(Stream *s, uint32_t index, uint32_t flags) noexcept nogil:
    """Run a command with all that may belong to it."""
    cdef const hesper_command *c = &hesper_commands[index]
    cdef int result
    recording_settle(s)
    s.begin = s.cursor
    s.cursor += COMMAND_HEADER_SIZE
    s.command = c
    if c.refused != NULL:
        return fail(s, ERROR_REFUSED, NULL, 0)
    s.first = NULL
    s.first_id = 0
    s.parent = NULL
    s.victims = NULL
    s.victim_count = 0
    s.device = 0
    s.depth = 0
    s.wants_reply = flags & FLAG_REPLY
    s.parameters = <uint8_t *>arena_take(&s.arena, c.size)
    if s.parameters == NULL:
        return fail(s, ERROR_MEMORY, NULL, c.size)
    if c.result != RESULT_VOID:
        (<uint32_t *>(s.parameters + c.result_offset))[0] = 0
        if c.result == RESULT_U64:
            (<uint64_t *>(s.parameters + c.result_offset))[0] = 0
    if decode(s, &hesper_ops[c.in_], c.in_count, s.parameters):
        if s.error == ERROR_DEAD and not s.lenient:
            return run_lenient(s, index, flags)
        return -1
    if hesper_load_acquire(&s.core.lost_devices) and answer_lost(s):
        result = 0
    elif s.lenient and s.dead:
        result = serve_dead(s, index)
    else:
        result = serve_row(s, index)
    if result:
        return run_later(s, index, flags) if result == LEFT_FOR_LATER else -1
    if command_result(s) < 0:
        note_failure(s, index)
    settle_if_lost(s.core)
    if s.first != NULL and s.first.type == HANDLE_VkCommandBuffer and c.result == RESULT_VOID:
        recording_charge(s, s.first, <uint64_t>(s.cursor - s.begin), 1)
    if hesper_load_acquire(&s.core.pool.ledger.reached):
        s.core.up.limit_reached(s.core)
    hesper_count(&s.commands, 1)
    recording_begin(s)
    if flags & FLAG_REPLY:
        hesper_note(&s.stage, STAGE_REPLY)
        if reply(s):
            return -1
    return flags & FLAG_REPLY


cdef inline int serve_row(Stream *s, uint32_t index) noexcept nogil:
    """Do what a command asks for: by its override, its Python handler, or the driver alone."""
    cdef const Row *row = &s.core.rows[index]
    cdef int result
    if s.command.call != NULL:
        hesper_note(&s.stage, STAGE_DRIVER)
    if row.override != NULL:
        result = row.override(s)
        if result != LEFT_TO_HANDLER:
            return result
    if not row.handled:
        return serve(s)
    if s.ring != NULL:
        ring_settle(s.ring)
    hesper_note(&s.stage, STAGE_HANDLER)
    return s.core.up.handler(s, index)


cdef inline int run_later(Stream *s, uint32_t index, uint32_t flags) noexcept nogil:
    """Run the command at `begin` when the context may submit, as if it came then."""
    share_wait(s)
    s.admitted = True
    s.cursor = s.begin
    return run_whole(s, index, flags)


cdef inline int run_lenient(Stream *s, uint32_t index, uint32_t flags) noexcept nogil:
    """Run the command at `begin`, which names a dead object, once more from there."""
    cdef int result
    s.error = ERROR_NONE
    s.error_op = NULL
    s.cursor = s.begin
    s.lenient = True
    s.dead = 0
    s.dead_first = False
    s.dead_argument = False
    s.first_split = NULL
    s.last_split = NULL
    result = run_whole(s, index, flags)
    s.lenient = False
    return result


cdef inline int serve_dead(Stream *s, uint32_t index) noexcept nogil:
    """Do in the driver's place what is left to do of a command that names a dead object."""
    cdef New new
    if s.first == NULL:
        return 0
    if s.command.destroys == 1:
        return forget_victims(s)
    if s.command.destroys == 2:
        clear_pool(s)
        return 0
    if (s.dead_first and not s.dead_argument and s.first.handle and (
            index == COMMAND_vkBeginCommandBuffer or index == COMMAND_vkResetCommandBuffer)):
        s.first.extra = s.first_id
        if not hesper_replace(&s.first.type, HANDLE_VkCommandBuffer | DEAD, HANDLE_VkCommandBuffer):
            return fail(s, ERROR_OBJECT, NULL, s.first_id)
        return serve_row(s, index)
    set_result(s, s.dead)
    if s.first.type & ~<uint32_t>DEAD == HANDLE_VkCommandBuffer:
        object_break(s.first, s.dead)
    elif s.command.new_type:
        if prepare_new(s, &new) or register_new(s, &new):
            return -1
        restore_ids(&new)
    elif (s.command.result == RESULT_VOID and not s.wants_reply
          and not s.command.traits & TRAIT_HARMLESS):
        device_lose(s.core, device_of(s), s.command)
    return 0


cdef inline bint records(uint32_t index) noexcept nogil:
    """Whether a command records into a command buffer and does nothing else."""
    cdef const hesper_command *c = &hesper_commands[index]
    cdef const hesper_op *op = &hesper_ops[c.in_]
    if (c.refused != NULL or c.call == NULL or c.result != RESULT_VOID or c.out_count
            or c.new_type or c.destroys or c.in_count == 0):
        return False
    return (op.code == OP_HANDLE and op.ref + 1 == HANDLE_VkCommandBuffer
            and op.flags & FLAG_FIRST != 0)


cdef inline uint16_t words_of(uint32_t index) noexcept nogil:
    """The size of all that it has beside its command buffer, if that is one copy; or 0."""
    cdef const hesper_command *c = &hesper_commands[index]
    cdef const hesper_op *op = &hesper_ops[c.in_]
    if (c.in_count == 2 and op[1].code == OP_COPY and op[1].offset == 8
            and op[1].size <= 8 * (PARAMETER_WORDS - 1)):
        return <uint16_t>op[1].size
    return 0


cdef inline void fill_hot(Core *core) noexcept nogil:
    """Make the table the loop works with; commands with a handler stay out of it."""
    cdef uint32_t number
    cdef uint32_t index
    cdef const hesper_command *c
    cdef Hot *hot
    for number in range(hesper_number_count):
        index = hesper_command_index[number]
        if index == NO_COMMAND:
            continue
        c = &hesper_commands[index]
        hot = &core.hot[number]
        hot.call = c.call
        hot.index = <uint16_t>index
        hot.may_block = c.traits & TRAIT_MAY_BLOCK
        if records(index) and not core.rows[index].handled:
            hot.records = True
            hot.words = words_of(index)
    core.hot[hesper_commands[COMMAND_vkCmdCopyBuffer].number].note = note_copy
    core.hot[hesper_commands[COMMAND_vkCmdFillBuffer].number].note = note_fill
    core.hot[hesper_commands[COMMAND_vkCmdCopyQueryPoolResults].number].note = note_queries


cdef inline void put_override(Core *core, uint32_t index, override_fn override) noexcept nogil:
    """Have a command served so from now on, unless its handler is awake."""
    if core.rows[index].handled:
        return
    core.rows[index].override = override
    if hesper_commands[index].number >= 0:
        go_whole_way(core, index)


cdef inline void go_whole_way(Core *core, uint32_t index) noexcept nogil:
    """Let `run_whole` run a command from now on."""
    cdef Hot *hot = &core.hot[hesper_commands[index].number]
    hot.records = False
    hot.words = 0
