"""From the wire to C memory: runs the "in" program of a command.

Every value is read from the stream exactly once; what is checked afterwards is the copy.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from hesper_commands cimport VK_STRUCTURE_TYPE_DEVICE_PRIVATE_DATA_CREATE_INFO

from hesper.kernel.core.arena cimport arena_take, arena_take_array
from hesper.kernel.core.dead cimport note_dead
from hesper.kernel.core.extents cimport bound_holds
from hesper.kernel.core.nulls cimport note_null
from hesper.kernel.core.objects cimport DEAD, Entry, Extent, object_extent, object_find
from hesper.kernel.core.platform cimport hesper_copy_words, hesper_read_u32, hesper_read_u64
from hesper.kernel.core.relations cimport is_within
from hesper.kernel.core.set_holds cimport set_holds
from hesper.kernel.core.state cimport (
    CHAIN_LIMIT, DEPTH_LIMIT, ERROR_CHAIN, ERROR_DEAD, ERROR_DEPTH, ERROR_DEVICE, ERROR_LENGTH,
    ERROR_MEMORY, ERROR_NULL, ERROR_OBJECT, ERROR_POINTER, ERROR_SHORT, ERROR_STRING, ERROR_STYPE,
    ERROR_TAG, ERROR_TWICE, ERROR_TYPE, NOTED, STRING_LIMIT, Noted, Stream, Victim, fail)
from hesper.kernel.core.structs cimport extends, struct_by_stype
from hesper.kernel.core.tables cimport *


cdef inline bint has(Stream *s, uint64_t size) noexcept nogil:
    return <uint64_t>(s.end - s.cursor) >= size


cdef inline uint64_t padded(uint64_t size) noexcept nogil:
    return (size + 3) & ~<uint64_t>3


cdef inline uint64_t length_of(const hesper_length *rule, const uint8_t *base) noexcept nogil:
    """The element count that `rule` finds in already decoded memory."""
    cdef const uint8_t *at
    cdef uint64_t count
    if rule.mode == LENGTH_FIELD:
        at = base + rule.first
    elif rule.mode == LENGTH_CONSTANT:
        return rule.constant
    else:
        at = (<const uint8_t *const *>(base + rule.first))[0]
        if at == NULL:
            return 0
        if rule.mode == LENGTH_POINTER_FIELD:
            at += rule.second
    count = (<const uint32_t *>at)[0] if rule.width == 4 else (<const uint64_t *>at)[0]
    if rule.divide != 1:
        count = (count + rule.add) // rule.divide
    return count


cdef inline bint divides(const hesper_length *rule, const uint8_t *base) noexcept nogil:
    """Whether a size in bytes (`codeSize`) is a whole number of elements."""
    cdef const uint8_t *at = base + rule.first
    cdef uint64_t size = (<const uint32_t *>at)[0] if rule.width == 4 else (<const uint64_t *>at)[0]
    return size % rule.divide == 0


cdef inline int decode_length(Stream *s, const hesper_op *op, const hesper_length *rule,
                              const uint8_t *base, uint64_t *count) noexcept nogil:
    """An array's length: what the wire says, which its count field must confirm; 0 is null."""
    cdef uint64_t expected
    if not has(s, 8):
        return fail(s, ERROR_SHORT, op, 0)
    count[0] = hesper_read_u64(s.cursor)
    s.cursor += 8
    expected = length_of(rule, base)
    if rule.divide > 1 and not rule.add and not divides(rule, base):
        return fail(s, ERROR_LENGTH, op, count[0])
    if count[0] == expected or (count[0] == 0 and op.flags & FLAG_NULLABLE):
        return 0
    return fail(s, ERROR_LENGTH, op, count[0])


cdef inline int decode_handle(Stream *s, const hesper_op *op, uint64_t *target) noexcept nogil:
    """One guest id, looked up: type and device must fit."""
    if not has(s, 8):
        return fail(s, ERROR_SHORT, op, 0)
    return decode_found(s, op, hesper_read_u64(s.cursor), target)


cdef inline void note_facts(Stream *s, Entry *entry, const uint64_t *target) noexcept nogil:
    """Keep the facts of an object, for the relation that comes at the end of what it stands in."""
    cdef Noted *noted = &s.noted[s.noted_next % NOTED]
    s.noted_next += 1
    noted.at = target
    memcpy(noted.facts, object_extent(entry).facts, sizeof(noted.facts))


cdef inline int decode_found(Stream *s, const hesper_op *op, uint64_t id,
                             uint64_t *target) noexcept nogil:
    """The id that stands at the cursor, read already: what `decode_handle` is about."""
    cdef Entry *entry
    cdef bint is_dead = False
    s.cursor += 8
    if id == 0:
        target[0] = 0
        if op.flags & (FLAG_FIRST | FLAG_REQUIRED):
            return fail(s, ERROR_NULL, op, 0)
        return note_null(s, op) if op.flags & FLAG_FEATURE else 0
    entry = object_find(&s.core.objects, id)
    if entry == NULL:
        return fail(s, ERROR_OBJECT, op, id)
    if entry.type != op.ref + <uint32_t>1:
        if entry.type != (op.ref + <uint32_t>1 | DEAD):
            return fail(s, ERROR_TYPE, op, id)
        if not s.lenient:
            return fail(s, ERROR_DEAD, op, id)
        is_dead = True
    if entry.device != s.device:
        if not (op.flags & FLAG_FIRST) and entry.device != 0 and s.device != 0:
            return fail(s, ERROR_DEVICE, op, id)
        if s.device == 0:
            s.device = entry.device
    target[0] = note_dead(s, op, entry) if is_dead else entry.handle
    if op.flags & (FLAG_FIRST | FLAG_VICTIM | FLAG_PARENT | FLAG_MEASURED | FLAG_NOTED):
        if op.flags & FLAG_NOTED:
            note_facts(s, entry, target)
        if op.flags & FLAG_MEASURED:
            s.extents[op.inner] = object_extent(entry)[0]
        if op.flags & FLAG_FIRST:
            s.first = entry
            s.first_id = id
        if op.flags & FLAG_PARENT:
            s.parent = entry
            s.parent_id = id
        if op.flags & FLAG_VICTIM:
            if s.victims == NULL:
                s.victims = <Victim *>arena_take(&s.arena, sizeof(Victim))
                if s.victims == NULL:
                    return fail(s, ERROR_MEMORY, op, 0)
            s.victims[s.victim_count].id = id
            s.victims[s.victim_count].handle = entry.handle
            s.victim_count += 1
    return 0


cdef inline int decode_handles(Stream *s, const hesper_op *op, uint64_t *targets,
                               uint64_t count) noexcept nogil:
    cdef uint64_t i
    cdef Extent *extents = NULL
    if op.flags & FLAG_VICTIM:
        s.victims = <Victim *>arena_take_array(&s.arena, count, sizeof(Victim))
        if s.victims == NULL:
            return fail(s, ERROR_MEMORY, op, count)
    if op.flags & FLAG_MEASURED:
        extents = <Extent *>arena_take_array(&s.arena, count, sizeof(Extent))
        if extents == NULL:
            return fail(s, ERROR_MEMORY, op, count)
        s.extent_list = extents
    for i in range(count):
        if decode_handle(s, op, &targets[i]):
            return -1
        if extents != NULL:
            extents[i] = s.extents[op.inner]
    return 0


cdef inline int decode_bytes(Stream *s, const hesper_op *op, void *target,
                             uint64_t size) noexcept nogil:
    """`size` bytes and their padding; `size` is known not to overflow."""
    cdef uint64_t taken = padded(size)
    if not has(s, taken):
        return fail(s, ERROR_SHORT, op, size)
    memcpy(target, s.cursor, size)
    s.cursor += taken
    return 0


cdef inline void *take_array(Stream *s, const hesper_op *op, uint64_t count, uint32_t size,
                             uint32_t wire) noexcept nogil:
    """Room for `count` elements that take at least `wire` bytes each in the stream."""
    cdef void *memory
    # Both factors fit into 32 bits, so that no product overflows (and nothing is divided).
    if count >> 32 or count * wire > <uint64_t>(s.end - s.cursor):
        fail(s, ERROR_SHORT, op, count)
        return NULL
    memory = arena_take_array(&s.arena, count, size)
    if memory == NULL:
        fail(s, ERROR_MEMORY, op, count)
    return memory


cdef inline int decode_struct(Stream *s, const hesper_struct *type, void *target) noexcept nogil:
    cdef int result
    if s.depth >= DEPTH_LIMIT:
        return fail(s, ERROR_DEPTH, NULL, s.depth)
    s.depth += 1
    result = decode(s, &hesper_ops[type.full], type.full_count, <uint8_t *>target)
    s.depth -= 1
    return result


cdef inline int decode_partial(Stream *s, const hesper_struct *type, void *target) noexcept nogil:
    cdef int result
    if type.partial_count == 0:
        return 0
    if s.depth >= DEPTH_LIMIT:
        return fail(s, ERROR_DEPTH, NULL, s.depth)
    s.depth += 1
    result = decode(s, &hesper_ops[type.partial], type.partial_count, <uint8_t *>target)
    s.depth -= 1
    return result


cdef inline int decode_structs(Stream *s, const hesper_op *op, uint8_t *target,
                               uint64_t count) noexcept nogil:
    cdef uint64_t i
    cdef const hesper_struct *type = &hesper_structs[op.ref]
    for i in range(count):
        if decode_struct(s, type, target + i * type.size):
            return -1
    return 0


cdef inline int decode_partials(Stream *s, const hesper_op *op, uint8_t *target,
                                uint64_t count) noexcept nogil:
    cdef uint64_t i
    cdef const hesper_struct *type = &hesper_structs[op.ref]
    for i in range(count):
        if decode_partial(s, type, target + i * type.size):
            return -1
    return 0


cdef inline bint stands_before(const hesper_base *node, uint32_t count,
                               uint32_t stype) noexcept nogil:
    """Whether such a struct is among the first `count` of a chain, which `node` begins."""
    while count and node.sType != stype:
        count -= 1
        if count:
            node = node.pNext
    return count != 0


cdef inline int decode_chain(Stream *s, const hesper_op *op, void **link, bint partial,
                             uint32_t count, const hesper_base *first) noexcept nogil:
    """The pNext chain: every struct's sType and next struct stand before its own fields.

    first: the first of the `count` structs that are decoded so far.  None is there twice: of two,
    one may be what is looked at, and the other what a driver takes.
    """
    cdef uint64_t present
    cdef const hesper_struct *type
    cdef hesper_base *node
    cdef uint32_t stype
    if not has(s, 8):
        return fail(s, ERROR_SHORT, op, 0)
    present = hesper_read_u64(s.cursor)
    s.cursor += 8
    if present == 0:
        link[0] = NULL
        return 0
    if count >= CHAIN_LIMIT:
        return fail(s, ERROR_DEPTH, op, count)
    if not has(s, 4):
        return fail(s, ERROR_SHORT, op, 0)
    stype = hesper_read_u32(s.cursor)
    s.cursor += 4
    type = struct_by_stype(stype)
    if type == NULL or not type.wire or not extends(type, op.ref):
        return fail(s, ERROR_CHAIN, op, stype)
    if (count and not partial and stype != VK_STRUCTURE_TYPE_DEVICE_PRIVATE_DATA_CREATE_INFO
            and stands_before(first, count, stype)):
        return fail(s, ERROR_TWICE, op, stype)
    node = <hesper_base *>arena_take(&s.arena, type.size)
    if node == NULL:
        return fail(s, ERROR_MEMORY, op, type.size)
    node.sType = stype
    link[0] = node
    if decode_chain(s, op, <void **>&node.pNext, partial, count + 1, first if count else node):
        return -1
    if partial:
        memset(node + 1, 0, type.size - sizeof(hesper_base))
        if type.partial_count > 2:
            return decode(s, &hesper_ops[type.partial + 2], type.partial_count - 2, <uint8_t *>node)
        return 0
    # The first two operations, sType and chain, are done.
    return decode(s, &hesper_ops[type.full + 2], type.full_count - 2, <uint8_t *>node)


cdef inline int decode_union(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    cdef uint8_t *target = base + op.offset
    cdef uint32_t tag
    cdef uint32_t i
    cdef const hesper_struct *type = &hesper_structs[op.ref]
    cdef const hesper_case *choice
    if not has(s, 4):
        return fail(s, ERROR_SHORT, op, 0)
    tag = hesper_read_u32(s.cursor)
    s.cursor += 4
    # The driver goes by the selector: a tag that says otherwise would confuse types.
    if op.inner_step and (<const uint32_t *>(base + op.inner_from))[0] != tag:
        return fail(s, ERROR_TAG, op, tag)
    memset(target, 0, type.size)
    for i in range(type.case_count):
        choice = &hesper_cases[type.cases + i]
        if choice.tag == tag:
            if s.depth >= DEPTH_LIMIT:
                return fail(s, ERROR_DEPTH, op, s.depth)
            s.depth += 1
            if decode(s, &hesper_ops[choice.op], choice.count, target):
                return -1
            s.depth -= 1
            return 0
    return fail(s, ERROR_TAG, op, tag)


cdef inline int decode_string(Stream *s, const hesper_op *op, char **link) noexcept nogil:
    cdef uint64_t size
    cdef char *text
    if not has(s, 8):
        return fail(s, ERROR_SHORT, op, 0)
    size = hesper_read_u64(s.cursor)
    s.cursor += 8
    if size == 0:
        link[0] = NULL
        return 0
    if size > STRING_LIMIT:
        return fail(s, ERROR_STRING, op, size)
    text = <char *>take_array(s, op, size, 1, 1)
    if text == NULL or decode_bytes(s, op, text, size):
        return -1
    text[size - 1] = 0
    link[0] = text
    return 0


cdef inline int decode_strings(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    cdef uint64_t count
    cdef uint64_t i
    cdef char **texts
    if decode_length(s, op, &hesper_lengths[op.length], base, &count):
        return -1
    (<void **>(base + op.offset))[0] = NULL
    if count == 0:
        return 0
    texts = <char **>take_array(s, op, count, sizeof(char *), 8)
    if texts == NULL:
        return -1
    for i in range(count):
        if decode_string(s, op, &texts[i]):
            return -1
        if texts[i] == NULL:
            return fail(s, ERROR_STRING, op, 0)
    (<char ***>(base + op.offset))[0] = texts
    return 0


cdef inline int decode_nested(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    """An array of pointers to arrays."""
    cdef uint64_t count
    cdef uint64_t inner
    cdef uint64_t i
    cdef void **arrays
    cdef const uint8_t *sibling = base
    cdef const uint8_t *siblings = NULL
    if decode_length(s, op, &hesper_lengths[op.length], base, &count):
        return -1
    (<void **>(base + op.offset))[0] = NULL
    if count == 0:
        return 0
    arrays = <void **>take_array(s, op, count, sizeof(void *), 8)
    if arrays == NULL:
        return -1
    if op.inner_step:
        siblings = (<const uint8_t *const *>(base + op.inner_from))[0]
        if siblings == NULL:
            return fail(s, ERROR_NULL, op, 0)
    for i in range(count):
        if op.inner_step:
            sibling = siblings + i * op.inner_step
        if decode_length(s, op, &hesper_lengths[op.inner], sibling, &inner):
            return -1
        # The outer array may be left out, an inner one may not: drivers read as much as there has
        # to be of each.
        if inner == 0 and length_of(&hesper_lengths[op.inner], sibling):
            return fail(s, ERROR_LENGTH, op, inner)
        arrays[i] = take_array(s, op, inner, op.size, 4)
        if arrays[i] == NULL:
            return -1
        if op.code == OP_NESTED_COPY:
            if decode_bytes(s, op, arrays[i], inner * op.size):
                return -1
        elif decode_structs(s, op, <uint8_t *>arrays[i], inner):
            return -1
    (<void ***>(base + op.offset))[0] = arrays
    return 0


cdef inline int decode_pointer(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    """A pointer to one thing."""
    cdef uint64_t present
    cdef void *target
    cdef void **link = <void **>(base + op.offset)
    if not has(s, 8):
        return fail(s, ERROR_SHORT, op, 0)
    present = hesper_read_u64(s.cursor)
    s.cursor += 8
    link[0] = NULL
    if present == 0:
        return 0 if op.flags & FLAG_NULLABLE else fail(s, ERROR_NULL, op, 0)
    if present != 1:
        return fail(s, ERROR_LENGTH, op, present)
    target = arena_take(&s.arena, op.size)
    if target == NULL:
        return fail(s, ERROR_MEMORY, op, op.size)
    link[0] = target
    if op.code == OP_POINTER_STRUCT:
        return decode_struct(s, &hesper_structs[op.ref], target)
    if op.code == OP_POINTER_COPY:
        return decode_bytes(s, op, target, op.size)
    if op.code == OP_POINTER_HANDLE:
        return decode_handle(s, op, <uint64_t *>target)
    memset(target, 0, op.size)
    if op.code == OP_POINTER_PARTIAL:
        return decode_partial(s, &hesper_structs[op.ref], target)
    return 0


cdef inline int decode_array(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    """A pointer to an array whose length stands elsewhere."""
    cdef uint64_t count
    cdef void *target
    cdef void **link = <void **>(base + op.offset)
    if decode_length(s, op, &hesper_lengths[op.length], base, &count):
        return -1
    link[0] = NULL
    if count == 0:
        return 0
    if op.code == OP_ARRAY_COPY:
        target = take_array(s, op, count, op.size, op.size)
        if target == NULL:
            return -1
        link[0] = target
        return decode_bytes(s, op, target, count * op.size)
    if op.code == OP_ARRAY_STRUCT:
        # No struct takes less than 4 bytes on the wire.
        target = take_array(s, op, count, op.size, 4)
        if target == NULL:
            return -1
        link[0] = target
        return decode_structs(s, op, <uint8_t *>target, count)
    if op.code == OP_ARRAY_HANDLE:
        target = take_array(s, op, count, 8, 8)
        if target == NULL:
            return -1
        link[0] = target
        return decode_handles(s, op, <uint64_t *>target, count)
    target = take_array(s, op, count, op.size, 0)
    if target == NULL:
        return -1
    memset(target, 0, count * op.size)
    link[0] = target
    if op.code == OP_ARRAY_PARTIAL:
        return decode_partials(s, op, <uint8_t *>target, count)
    return 0


cdef inline int decode_fixed(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    """An array in place; the wire repeats its length."""
    cdef uint64_t count
    if decode_length(s, op, &hesper_lengths[op.length], base, &count):
        return -1
    if op.code == OP_FIXED_COPY:
        return decode_bytes(s, op, base + op.offset, count * op.size)
    if op.code == OP_FIXED_STRUCT:
        return decode_structs(s, op, base + op.offset, count)
    return decode_partials(s, op, base + op.offset, count)


cdef inline bint common_length(const hesper_op *op, const uint8_t *cursor, uint64_t left,
                               const uint8_t *base, uint64_t *count) noexcept nogil:
    """The common array's length: none where there may be none, or what a u32 beside it says."""
    cdef const hesper_length *rule = &hesper_lengths[op.length]
    if left < 8 or rule.divide != 1:
        return False
    count[0] = hesper_read_u64(cursor)
    if count[0] == 0:
        return op.flags & FLAG_NULLABLE
    return (rule.mode == LENGTH_FIELD and rule.width == 4
            and count[0] == (<const uint32_t *>(base + rule.first))[0])


cdef inline bint copy_array(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    """OP_ARRAY_COPY as it mostly is: whole words, and room in the arena.

    False, with nothing done, where it is anything else.
    """
    cdef const uint8_t *cursor = s.cursor
    cdef uint64_t left = s.end - cursor
    cdef uint64_t count
    cdef uint64_t size
    if not common_length(op, cursor, left, base, &count):
        return False
    # Both factors fit into 32 bits.
    size = count * op.size
    if size & 3 or size > left - 8 or size + 8 > <uint64_t>(s.arena.end - s.arena.next):
        return False
    hesper_copy_words(s.arena.next, cursor + 8, size)
    (<void **>(base + op.offset))[0] = s.arena.next if size else NULL
    s.arena.next += (size + 7) & ~<uint64_t>7
    s.cursor = cursor + 8 + size
    return True


cdef inline uint8_t *common_array(Stream *s, const hesper_op *op, uint8_t *base,
                                  uint64_t *count) noexcept nogil:
    """OP_ARRAY_STRUCT or OP_ARRAY_HANDLE as it mostly is: room for `count` elements, which follow.

    Null, with nothing done, where it is anything else.
    """
    cdef const uint8_t *cursor = s.cursor
    cdef uint64_t left = s.end - cursor
    cdef uint8_t *target = s.arena.next
    cdef uint64_t size
    if not common_length(op, cursor, left, base, count):
        return NULL
    size = count[0] * op.size
    # No element takes less than 4 bytes on the wire.
    if count[0] * 4 > left - 8 or size + 8 > <uint64_t>(s.arena.end - target):
        return NULL
    (<void **>(base + op.offset))[0] = target if size else NULL
    s.arena.next = target + ((size + 7) & ~<uint64_t>7)
    s.cursor = cursor + 8
    return target


cdef inline bint common_handle(Stream *s, const hesper_op *op, uint64_t id,
                               uint64_t *target) noexcept nogil:
    """The common handle: null, or of the right type and device; False for another."""
    cdef Entry *entry
    if op.flags & (FLAG_VICTIM | FLAG_PARENT | FLAG_NOTED):
        return False
    if id == 0:
        target[0] = 0
        return not op.flags & (FLAG_FIRST | FLAG_REQUIRED | FLAG_FEATURE)
    entry = object_find(&s.core.objects, id)
    if entry == NULL or entry.type != op.ref + <uint32_t>1:
        return False
    if op.flags & FLAG_FIRST:
        if s.device != 0:
            return False
        s.device = entry.device
        s.first = entry
        s.first_id = id
    elif entry.device != s.device:
        return False
    elif op.flags & FLAG_MEASURED:
        s.extents[op.inner] = object_extent(entry)[0]
    target[0] = entry.handle
    return True


cdef inline int decode(Stream *s, const hesper_op *op, uint32_t count,
                       uint8_t *base) noexcept nogil:
    """Run `count` operations that fill the C struct at `base`; -1 with the error noted."""
    cdef const hesper_op *last = op + count
    # In registers: the stream's own cursor would be stored and loaded again for every operation.
    cdef const uint8_t *cursor = s.cursor
    cdef const uint8_t *end = s.end
    cdef uint64_t word
    cdef uint8_t *array
    cdef uint8_t code
    while op < last:
        code = op.code
        # The commonest operations first, each as it mostly is.
        if code == OP_COPY:
            if <size_t>(end - cursor) < op.size:
                s.cursor = cursor
                return fail(s, ERROR_SHORT, op, op.size)
            hesper_copy_words(base + op.offset, cursor, op.size)
            cursor += op.size
        elif code == OP_HANDLE and <size_t>(end - cursor) >= 8:
            word = hesper_read_u64(cursor)
            if not common_handle(s, op, word, <uint64_t *>(base + op.offset)):
                s.cursor = cursor
                if decode_found(s, op, word, <uint64_t *>(base + op.offset)):
                    return -1
            cursor += 8
        elif code == OP_ARRAY_COPY:
            s.cursor = cursor
            if not copy_array(s, op, base) and decode_array(s, op, base):
                return -1
            cursor = s.cursor
        elif code == OP_ARRAY_STRUCT or code == OP_ARRAY_HANDLE:
            s.cursor = cursor
            array = common_array(s, op, base, &word)
            if array == NULL:
                if decode_array(s, op, base):
                    return -1
            elif code == OP_ARRAY_STRUCT:
                if decode_structs(s, op, array, word):
                    return -1
            elif decode_handles(s, op, <uint64_t *>array, word):
                return -1
            cursor = s.cursor
        elif code >= OP_BOUND:
            if not bound_holds(s, op, code, base) and s.core.check_bound(s, op, base):
                s.cursor = cursor
                return -1
        elif (code == OP_STYPE and <size_t>(end - cursor) >= 4
                and hesper_read_u32(cursor) == <uint64_t>hesper_structs[op.ref].stype):
            (<uint32_t *>base)[0] = <uint32_t>hesper_structs[op.ref].stype
            cursor += 4
        elif ((code == OP_CHAIN or code == OP_NULL) and <size_t>(end - cursor) >= 8
                and hesper_read_u64(cursor) == 0):
            (<void **>(base + op.offset))[0] = NULL
            cursor += 8
        elif code == OP_CHECK_LIMIT and is_within(s, op, base):
            pass
        elif code == OP_SETS:
            if not set_holds(s, op, base) and s.core.check_sets(s, op, base):
                s.cursor = cursor
                return -1
        else:
            s.cursor = cursor
            if decode_other(s, op, code, base):
                return -1
            cursor = s.cursor
        op += 1
    s.cursor = cursor
    return 0


cdef inline int decode_other(Stream *s, const hesper_op *op, uint8_t code,
                             uint8_t *base) noexcept nogil:
    """What `decode` does not do by itself."""
    cdef uint32_t word
    if code >= OP_CHECK:
        return s.core.up.check(s, op, base)
    if code == OP_ARRAY_OUT or code == OP_ARRAY_PARTIAL:
        return decode_array(s, op, base)
    if code == OP_STYPE:
        if not has(s, 4):
            return fail(s, ERROR_SHORT, op, 0)
        word = hesper_read_u32(s.cursor)
        s.cursor += 4
        if <int64_t>word != hesper_structs[op.ref].stype:
            return fail(s, ERROR_STYPE, op, word)
        (<uint32_t *>base)[0] = word
        return 0
    if code == OP_CHAIN or code == OP_CHAIN_PARTIAL:
        return decode_chain(s, op, <void **>(base + op.offset), code == OP_CHAIN_PARTIAL, 0,
                            NULL)
    if code == OP_HANDLE:
        return decode_handle(s, op, <uint64_t *>(base + op.offset))
    if code == OP_POINTER_COPY or code == OP_POINTER_STRUCT or code == OP_POINTER_HANDLE \
            or code == OP_POINTER_OUT or code == OP_POINTER_PARTIAL:
        return decode_pointer(s, op, base)
    if code == OP_NULL:
        if not has(s, 8):
            return fail(s, ERROR_SHORT, op, 0)
        if hesper_read_u64(s.cursor) != 0:
            return fail(s, ERROR_POINTER, op, 0)
        s.cursor += 8
        (<void **>(base + op.offset))[0] = NULL
        return 0
    if code == OP_STRUCT:
        return decode_struct(s, &hesper_structs[op.ref], base + op.offset)
    if code == OP_UNION:
        return decode_union(s, op, base)
    if code == OP_NARROW:
        if not has(s, 4):
            return fail(s, ERROR_SHORT, op, 0)
        word = hesper_read_u32(s.cursor)
        s.cursor += 4
        memcpy(base + op.offset, &word, op.size)
        return 0
    if code == OP_FIXED_COPY or code == OP_FIXED_STRUCT or code == OP_FIXED_PARTIAL:
        return decode_fixed(s, op, base)
    if code == OP_STRING:
        return decode_string(s, op, <char **>(base + op.offset))
    if code == OP_STRINGS:
        return decode_strings(s, op, base)
    if code == OP_STRUCT_PARTIAL:
        return decode_partial(s, &hesper_structs[op.ref], base + op.offset)
    return decode_nested(s, op, base)
