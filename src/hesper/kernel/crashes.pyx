"""A worker that dies says which command it was in: see `includes/crash.h`; `crashes.pyi`."""

from libc.stdint cimport uint32_t

from hesper.kernel.core.state cimport STAGE_DECODE, STAGE_DRIVER, STAGE_HANDLER, STAGE_REPLY
from hesper.kernel.core.tables cimport (
    NO_COMMAND, hesper_command_index, hesper_commands, hesper_number_count)

cdef extern from "crash.h" nogil:
    void hesper_crash_report(int fd, const char *(*command)(uint32_t) noexcept nogil,
                             const char *(*stage)(uint32_t) noexcept nogil)
    int hesper_crash_enter(uint32_t ring, const uint32_t *stage, const uint32_t *number)
    void hesper_crash_leave(int slot)


cdef const char *crash_command(uint32_t number) noexcept nogil:
    if number >= hesper_number_count or hesper_command_index[number] == NO_COMMAND:
        return b"no command"
    return hesper_commands[hesper_command_index[number]].name


cdef const char *crash_stage(uint32_t stage) noexcept nogil:
    """What a stream is doing, in words; null where it is not at work."""
    if stage == STAGE_DECODE:
        return b"being decoded"
    if stage == STAGE_DRIVER:
        return b"in the driver"
    if stage == STAGE_REPLY:
        return b"being answered"
    if stage == STAGE_HANDLER:
        return b"in its handler"
    return NULL


def report_crashes(int fd):
    hesper_crash_report(fd, crash_command, crash_stage)


cdef int crash_enter(uint32_t ring, const uint32_t *stage, const uint32_t *number) noexcept nogil:
    """This thread runs commands, and notes them at those places; its slot, -1 without one."""
    return hesper_crash_enter(ring, stage, number)


cdef void crash_leave(int slot) noexcept nogil:
    hesper_crash_leave(slot)
