"""Dead objects: ids that the guest takes for objects and the driver has never made.

Mesa sends most commands without waiting and tells its program that they have succeeded.  One that
fails cannot be told of, and ending the context would end the program for what it could survive:

- What a command fails to make stays as a dead object: it counts as one, is destroyed silently,
  and goes with its pool and device.  Where the guest has heard of the failure it will hardly name
  the object again: of those the last few are kept.
- A command that uses a dead object never reaches the driver.  It has the dead object's result, if
  it has one, and what it would have made or bound is dead, too.
- A command buffer that such a command was to be recorded into is dead until it is begun again.
- Where work would be missing that the guest waits for or builds on (a submission, an update of
  descriptors), the device is lost: the guest hears of that (`lost.pxd`).
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from hesper.kernel.core.objects cimport DEAD, NO_TYPE, Entry, object_find, object_remove
from hesper.kernel.core.platform cimport (
    hesper_load_acquire, hesper_replace, hesper_spin_lock, hesper_spin_unlock)
from hesper.kernel.core.state cimport HEARD, Core, Stream
from hesper.kernel.core.tables cimport FLAG_FIRST, FLAG_VICTIM, RESULT_I32, hesper_op


cdef inline int32_t dead_result(const Entry *entry) noexcept nogil:
    return <int32_t><uint32_t>entry.extra


cdef inline int32_t command_result(Stream *s) noexcept nogil:
    """The VkResult of the command that has just run, 0 if it has none."""
    if s.command.result != RESULT_I32:
        return 0
    return (<int32_t *>(s.parameters + s.command.result_offset))[0]


cdef inline void set_result(Stream *s, int32_t result) noexcept nogil:
    if s.command.result == RESULT_I32:
        (<int32_t *>(s.parameters + s.command.result_offset))[0] = result


cdef inline void heard_add(Core *core, uint64_t id) noexcept nogil:
    """Keep a dead object that the guest knows of, in the place of the oldest one."""
    cdef uint64_t oldest
    cdef Entry *entry
    hesper_spin_lock(&core.heard_lock)
    oldest = core.heard[core.heard_next]
    core.heard[core.heard_next] = id
    core.heard_next = (core.heard_next + 1) % HEARD
    entry = object_find(&core.objects, oldest) if oldest else NULL
    if entry != NULL and entry.type & DEAD and entry.handle == 0:
        object_remove(&core.objects, entry)
    hesper_spin_unlock(&core.heard_lock)


cdef inline bint heard_remove(Core *core, uint64_t id) noexcept nogil:
    """Forget such an object, whose id is used again; False if it is none."""
    cdef Entry *entry
    cdef bint found = False
    cdef uint32_t i
    hesper_spin_lock(&core.heard_lock)
    for i in range(HEARD):
        if core.heard[i] == id:
            core.heard[i] = 0
            entry = object_find(&core.objects, id)
            found = entry != NULL and entry.type & DEAD
            if found:
                object_remove(&core.objects, entry)
    hesper_spin_unlock(&core.heard_lock)
    return found


cdef inline void object_break(Entry *entry, int32_t result) noexcept nogil:
    """Let a live object be dead from now on; the driver's stays until it is destroyed."""
    cdef uint32_t type = hesper_load_acquire(&entry.type)
    if type != NO_TYPE and not type & DEAD:
        entry.extra = <uint32_t>result
        hesper_replace(&entry.type, type, type | DEAD)


cdef inline uint64_t note_dead(Stream *s, const hesper_op *op, const Entry *entry) noexcept nogil:
    """Note that a command names a dead object; what stands in the parameters for it.

    The driver has what it can destroy: a command buffer that is dead since something failed for it,
    or a buffer without its memory.
    """
    if op.flags & FLAG_VICTIM and s.command.destroys == 1:
        return entry.handle
    if op.flags & FLAG_FIRST:
        s.dead_first = True
    else:
        s.dead_argument = True
    s.dead = dead_result(entry)
    return entry.handle if op.flags & FLAG_FIRST else 0
