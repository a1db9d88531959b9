"""What is recorded into command buffers, which the driver keeps until they are begun again.

Nothing is counted while commands run: what lies between two places of a stream was recorded into
one command buffer, unless something else has run there.  So those who run a stream do it by pieces
of `PIECE` bytes, and ask here between them.
"""

from libc.stdint cimport uint8_t, uint64_t

from hesper_commands cimport HANDLE_VkCommandBuffer, VK_ERROR_OUT_OF_HOST_MEMORY

from hesper.kernel.core.dead cimport object_break
from hesper.kernel.core.ledger cimport ACCOUNT_RECORDED, ledger_give
from hesper.kernel.core.objects cimport Entry, Kin, object_kin
from hesper.kernel.core.platform cimport hesper_add_u64, hesper_exchange_u64
from hesper.kernel.core.shm_pool cimport pool_room
from hesper.kernel.core.state cimport Core, Stream


cdef enum:
    PIECE = 65536
    COMMAND_COST = 256          # besides its bytes, in what a driver makes of it


cdef inline const uint8_t *piece_end(Stream *s) noexcept nogil:
    """How far to run before `recording_settle` is to be called."""
    return s.cursor + PIECE if <uint64_t>(s.end - s.cursor) > PIECE else s.end


cdef inline void recording_begin(Stream *s) noexcept nogil:
    """Count from the cursor on."""
    s.counted_from = s.cursor
    s.counted_commands = s.commands


cdef inline void recording_settle(Stream *s) noexcept nogil:
    """Charge what was recorded since the last call, and count from the cursor on."""
    cdef uint64_t commands = s.commands - s.counted_commands
    if commands and s.recorded != NULL:
        recording_charge(s, s.recorded, <uint64_t>(s.cursor - s.counted_from), commands)
    recording_begin(s)


cdef inline void recording_charge(Stream *s, Entry *entry, uint64_t size,
                                  uint64_t commands) noexcept nogil:
    """Charge `size` bytes of commands to a command buffer; it is dead when they are not left."""
    if entry.type != HANDLE_VkCommandBuffer:
        return                  # it is gone, and what was recorded with it
    size += commands * COMMAND_COST
    if pool_room(s.core.pool, ACCOUNT_RECORDED, size):
        hesper_add_u64(&object_kin(entry).recorded, size)
    else:
        object_break(entry, VK_ERROR_OUT_OF_HOST_MEMORY)


cdef inline void recording_drop(Core *core, Kin *kin) noexcept nogil:
    """Give back what was charged for a command buffer."""
    cdef uint64_t size = hesper_exchange_u64(&kin.recorded, 0)
    if size:
        ledger_give(&core.pool.ledger, ACCOUNT_RECORDED, size)
