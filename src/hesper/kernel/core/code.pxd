"""Whether a shader's words are a SPIR-V module, as far as every parser goes along them.

Source: the SPIR-V specification, "Physical Layout of a SPIR-V Module and Instruction", and its
"Universal Limits".  What the instructions say is for the driver.
"""

from libc.stdint cimport uint32_t, uint64_t

from hesper_commands cimport VkShaderModuleCreateInfo

from hesper.kernel.core.state cimport (
    CODE_BOUND, CODE_LENGTH, CODE_MAGIC, CODE_SCHEMA, CODE_SHORT, CODE_VERSION, ERROR_CODE,
    CodeFault, Stream, fail)
from hesper.kernel.core.tables cimport hesper_op


cdef enum:
    MAGIC = 0x07230203
    HEADER_WORDS = 5
    MOST_IDS = 4194303


cdef inline int fail_code(Stream *s, const hesper_op *op, CodeFault fault, uint64_t value,
                          uint64_t start, uint64_t most) noexcept nogil:
    s.error_code = fault
    s.error_start = start
    s.error_most = most
    return fail(s, ERROR_CODE, op, value)


cdef inline int check_code(Stream *s, const hesper_op *op,
                           const VkShaderModuleCreateInfo *info) noexcept nogil:
    """A VkShaderModuleCreateInfo, whose size is one of whole words; -1 with the error noted."""
    cdef const uint32_t *words = <const uint32_t *>info.pCode
    cdef uint64_t count = info.codeSize // 4 if words != NULL else 0
    cdef uint64_t at = HEADER_WORDS
    cdef uint32_t length
    if count < HEADER_WORDS:
        return fail_code(s, op, CODE_SHORT, 4 * count, 0, 4 * HEADER_WORDS)
    if words[0] != MAGIC:
        return fail_code(s, op, CODE_MAGIC, words[0], 0, MAGIC)
    # 0, major, minor, 0: all minor versions of 1, as drivers say which they take.
    if words[1] >> 16 != 1 or words[1] & 0xff:
        return fail_code(s, op, CODE_VERSION, words[1], 0, 0)
    if words[3] == 0 or words[3] > MOST_IDS:
        return fail_code(s, op, CODE_BOUND, words[3], 0, MOST_IDS)
    if words[4]:
        return fail_code(s, op, CODE_SCHEMA, words[4], 0, 0)
    while at < count:
        length = words[at] >> 16
        if length == 0 or length > count - at:
            return fail_code(s, op, CODE_LENGTH, length, at, count - at)
        at += length
    return 0
