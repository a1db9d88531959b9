# A worker that dies says which command it was in: see includes/crash.h.

cdef const char *crash_command(uint32_t number) noexcept nogil:
    if number >= hesper_number_count or hesper_command_index[number] == 0xffff:
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
