"""Errors in words: what the guest sent, where, and what is wrong with it."""

from libc.stdint cimport uint32_t, uint64_t

from hesper.kernel.core.ledger cimport LIMIT_MEMORY, LIMIT_TOTAL
from hesper.kernel.core.state cimport *
from hesper.kernel.core.tables cimport *


SET_FAULTS = {
    SET_GONE: "the layout of its set is known no more",
    SET_NO_BINDING: "the layout has no binding {value}",
    SET_BEYOND: "{most} descriptors from element {start} of binding {value} on, which the layout"
                " has not",
    SET_TYPE: "the layout has a binding of another type for {most} descriptors from element {start}"
              " of binding {value} on",
    SET_STAGES: "{most} descriptors from element {start} of binding {value} on, which lie in"
                " bindings of other stages",
    SET_OTHER_TYPE: "binding {start} is copied to binding {value}, which is of another type",
    SET_NO_LAYOUT: "the pipeline layout has no set {value}",
    SET_OTHER: "set {value} has another layout than that of the pipeline layout",
    SET_PUSHED: "set {value} of the pipeline layout is none to be pushed",
    SET_DYNAMIC: "{value} dynamic offsets, where there are {most} dynamic descriptors",
    SET_TWICE: "binding {value} stands there twice",
    SET_NOT_LAST: "binding {value} has a variable number of descriptors, but {most} is the last",
    SET_FIXED: "binding {value} can have no dynamic descriptors",
    SET_NO_TYPES: "binding {value} is of several types, and none is named",
    SET_UNSUPPORTED: "the driver does not support a binding of these types",
    SET_VARIABLE: "{value} descriptors of a variable number, of which the layout has {most}",
    SET_LIMIT: "{value} dynamic descriptors, where the device has at most {most}",
    SET_REACH: "a dynamic offset of {value}, where behind the descriptor's part of the buffer there"
               " are {most} bytes",
    SET_PLANES: "a view of several planes among the descriptors from element {start} of binding"
                " {value} on, which has no samplers of its own that put so many together",
}


CODE_FAULTS = {
    CODE_SHORT: "{value} bytes, where the header of a SPIR-V module has {most}",
    CODE_MAGIC: "it is no SPIR-V: it begins with {value:#010x}, not with {most:#010x}",
    CODE_VERSION: "its SPIR-V version, {value:#010x}, is none of 1",
    CODE_BOUND: "its ids are said to lie below {value}; a module has one and {most} at most",
    CODE_SCHEMA: "the last word of its header is {value}, not 0",
    CODE_LENGTH: "the instruction at word {start} is said to have {value} words; {most} are left",
}


cdef str field_label(Stream *s):
    """The command's parameter, or the struct's field, that the failing operation fills."""
    cdef const hesper_op *op = s.error_op
    cdef uint32_t index
    cdef uint32_t i
    cdef const hesper_struct *type
    if op == NULL or s.command == NULL:
        return ""
    if OP_CHECK <= op.code < OP_BOUND:
        return owner_of(op)
    index = <uint32_t>(op - &hesper_ops[0])
    if s.command.in_ <= index < s.command.in_ + s.command.in_count:
        return field_at(s.command.fields, s.command.field_count, op.offset)
    for i in range(hesper_struct_count):
        type = &hesper_structs[i]
        if (type.full <= index < type.full + type.full_count
                or type.partial <= index < type.partial + type.partial_count):
            label = field_at(type.fields, type.field_count, op.offset)
            return f"{type.name.decode()}.{label}"
    return ""


cdef str owner_of(const hesper_op *op):
    """The struct whose relations the operation checks; empty: the command's own."""
    cdef uint32_t index = <uint32_t>(op - &hesper_ops[0])
    cdef uint32_t i
    for i in range(hesper_struct_count):
        if hesper_structs[i].full <= index < hesper_structs[i].full + hesper_structs[i].full_count:
            return hesper_structs[i].name.decode()
    return ""


cdef str field_at(uint32_t start, uint32_t count, uint32_t offset):
    cdef uint32_t i
    for i in range(count):
        if hesper_fields[start + i].offset == offset:
            return hesper_fields[start + i].name.decode()
    return "?"


cdef str describe(Stream *s):
    """One line about the noted error."""
    cdef uint64_t value = s.error_value
    cdef Error error = s.error
    if error == ERROR_SHORT:
        what = "the stream ends inside the command"
    elif error == ERROR_COMMAND:
        what = f"there is no command {value}"
    elif error == ERROR_REFUSED:
        why = s.command.refused.decode() if s.command.refused != NULL else "it has no handler"
        what = f"refused: {why}"
    elif error == ERROR_NULL:
        what = "null is not allowed"
        if s.error_op != NULL and s.error_op.flags & FLAG_FEATURE:
            what += " without the feature for it"
    elif error == ERROR_POINTER:
        what = "must be null: such pointers have no wire format"
    elif error == ERROR_OBJECT:
        what = f"there is no object {value}"
    elif error == ERROR_TYPE:
        what = f"object {value} is of another type"
    elif error == ERROR_DEVICE:
        what = f"object {value} belongs to another device"
    elif error == ERROR_LENGTH:
        what = f"array length {value} contradicts its count"
    elif error == ERROR_STYPE:
        what = f"sType {value} is not this struct's"
    elif error == ERROR_CHAIN:
        what = f"a struct with sType {value} may not stand in this pNext chain"
    elif error == ERROR_DEPTH:
        what = f"nested or chained more than {value} deep"
    elif error == ERROR_TAG:
        what = f"union tag {value} is unknown"
    elif error == ERROR_MEMORY:
        what = f"the command needs more memory than a command may take (for {value})"
        if (s.core.pool.ledger.reached | s.core.pool.ledger.told) >> LIMIT_MEMORY & 1:
            most = s.core.pool.ledger.limit
            what = f"the memory limit, {most} bytes, is reached (--limit memory)"
        elif (s.core.pool.ledger.reached | s.core.pool.ledger.told) >> LIMIT_TOTAL & 1:
            what = "all clients together have the memory they may have (--limit total_memory)"
    elif error == ERROR_STRING:
        what = f"a string of {value} bytes"
    elif error == ERROR_FUNCTION:
        what = "the host driver does not have this command (extension not enabled?)"
    elif error == ERROR_ID:
        what = f"object id {value} is taken" if value else "object id 0 for a new object"
    elif error == ERROR_LIMIT:
        what = f"more than {value} objects"
    elif error == ERROR_REPLY:
        what = "no reply stream is set" if s.reply_start == NULL else "the reply stream is full"
    elif error == ERROR_RESOURCE:
        what = f"resource {value} is unknown, too small or misaligned"
    elif error == ERROR_NESTED:
        what = "command streams inside a command stream, or none at all"
    elif error == ERROR_RING:
        what = f"bad ring request ({value})"
    elif error == ERROR_PLACE:
        what = "sent over the wrong stream"
    elif error == ERROR_DEAD:
        what = f"object {value} could not be made"
    elif error == ERROR_RELATION:
        text = s.error_relation.text.decode()
        what = f"{value} breaks the relation {text!r}"
        if s.error_relation.right_count:
            what += f", whose right side is {s.error_right}"
    elif error == ERROR_TWICE:
        what = "a struct stands twice in a pNext chain"
    elif error == ERROR_ALIGNMENT:
        what = f"offset {s.error_start}, which must be a multiple of {value}"
    elif error == ERROR_BOUND:
        what = f"{value} from {s.error_start} on, where there are {s.error_most}"
    elif error == ERROR_SET:
        what = SET_FAULTS[s.error_set].format(value=value, start=s.error_start, most=s.error_most)
    elif error == ERROR_CODE:
        faults = CODE_FAULTS[s.error_code]
        what = faults.format(value=value, start=s.error_start, most=s.error_most)
    elif error == ERROR_HANDLER:
        what = s.core.reason.decode("utf-8", "replace")
    else:
        what = "the context is being closed"
    command = s.command.name.decode() if s.command != NULL else "a command"
    label = field_label(s)
    where = f"{command} at byte {s.cursor - s.start}"
    return f"{where}: {label}: {what}" if label else f"{where}: {what}"
