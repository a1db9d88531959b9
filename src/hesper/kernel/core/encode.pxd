"""From C memory to the reply stream: runs the "out" program of a command."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from hesper.kernel.core.decode cimport length_of, padded
from hesper.kernel.core.platform cimport hesper_write_u32, hesper_write_u64
from hesper.kernel.core.state cimport ERROR_REPLY, Stream, fail
from hesper.kernel.core.structs cimport extends, struct_by_stype
from hesper.kernel.core.tables cimport *


cdef inline bint room(Stream *s, uint64_t size) noexcept nogil:
    return <uint64_t>(s.reply_end - s.reply) >= size


cdef inline int put_u64(Stream *s, uint64_t value) noexcept nogil:
    if not room(s, 8):
        return fail(s, ERROR_REPLY, NULL, 8)
    hesper_write_u64(s.reply, value)
    s.reply += 8
    return 0


cdef inline int put_u32(Stream *s, uint32_t value) noexcept nogil:
    if not room(s, 4):
        return fail(s, ERROR_REPLY, NULL, 4)
    hesper_write_u32(s.reply, value)
    s.reply += 4
    return 0


cdef inline int put_bytes(Stream *s, const void *source, uint64_t size) noexcept nogil:
    cdef uint64_t taken = padded(size)
    if not room(s, taken):
        return fail(s, ERROR_REPLY, NULL, taken)
    if size:
        memcpy(s.reply, source, size)
    if taken != size:
        memset(s.reply + size, 0, taken - size)
    s.reply += taken
    return 0


cdef inline int encode_structs(Stream *s, const hesper_op *op, const uint8_t *source,
                               uint64_t count) noexcept nogil:
    cdef uint64_t i
    cdef const hesper_struct *type = &hesper_structs[op.ref]
    for i in range(count):
        if encode(s, &hesper_ops[type.full], type.full_count, source + i * type.size):
            return -1
    return 0


cdef inline int encode_chain(Stream *s, const hesper_op *op,
                             const hesper_base *node) noexcept nogil:
    """A pNext chain.  Structs that Hesper has put there for the host stay behind."""
    cdef const hesper_struct *type
    while node != NULL:
        type = struct_by_stype(node.sType)
        if type != NULL and type.wire and extends(type, op.ref):
            break
        node = node.pNext
    if node == NULL:
        return put_u64(s, 0)
    if put_u64(s, 1) or put_u32(s, node.sType):
        return -1
    if encode_chain(s, op, node.pNext):
        return -1
    return encode(s, &hesper_ops[type.full + 2], type.full_count - 2,
                  <const uint8_t *>node)


cdef inline int encode(Stream *s, const hesper_op *op, uint32_t count,
                       const uint8_t *base) noexcept nogil:
    """Run `count` operations over the C struct at `base`; -1 when the reply stream is full."""
    cdef const hesper_op *end = op + count
    cdef const uint8_t *at
    cdef uint64_t length
    cdef uint32_t word
    cdef uint8_t code
    while op < end:
        code = op.code
        at = base + op.offset
        if code == OP_COPY or code == OP_HANDLE:
            if put_bytes(s, at, op.size):
                return -1
        elif code == OP_STYPE:
            if put_u32(s, (<const uint32_t *>base)[0]):
                return -1
        elif code == OP_CHAIN:
            if encode_chain(s, op, (<const hesper_base *const *>at)[0]):
                return -1
        elif code == OP_POINTER_COPY or code == OP_POINTER_STRUCT:
            at = (<const uint8_t *const *>at)[0]
            if put_u64(s, at != NULL):
                return -1
            if at != NULL:
                if code == OP_POINTER_COPY:
                    if put_bytes(s, at, op.size):
                        return -1
                elif encode_structs(s, op, at, 1):
                    return -1
        elif code == OP_ARRAY_COPY or code == OP_ARRAY_STRUCT:
            at = (<const uint8_t *const *>at)[0]
            length = length_of(&hesper_lengths[op.length], base) if at != NULL else 0
            if put_u64(s, length):
                return -1
            if code == OP_ARRAY_COPY:
                if put_bytes(s, at, length * op.size):
                    return -1
            elif encode_structs(s, op, at, length):
                return -1
        elif code == OP_FIXED_COPY or code == OP_FIXED_STRUCT:
            length = hesper_lengths[op.length].constant
            if put_u64(s, length):
                return -1
            if code == OP_FIXED_COPY:
                if put_bytes(s, at, length * op.size):
                    return -1
            elif encode_structs(s, op, at, length):
                return -1
        elif code == OP_STRUCT:
            if encode_structs(s, op, at, 1):
                return -1
        elif code == OP_NARROW:
            word = at[0] if op.size == 1 else (<const uint16_t *>at)[0]
            if put_u32(s, word):
                return -1
        elif code < OP_CHECK:
            # The compiler emits no other operation for what a command gives back.
            return fail(s, ERROR_REPLY, op, code)
        op += 1
    return 0
