"""Lost devices: what the driver said once holds from then on.

A driver may say VK_ERROR_DEVICE_LOST to anything, and something else the next time.  From the
first time on, everything that a guest can wait for or submit is answered with it here, what it
looks at in memory instead (`feedback.pxd`) is written, and fences of timelines count as through.
"""

from libc.stdint cimport int32_t, uint32_t

from hesper_commands cimport HANDLE_VkDevice, HANDLE_VkQueue, VK_ERROR_DEVICE_LOST

from hesper.kernel.core.feedback cimport feedback_release
from hesper.kernel.core.platform cimport (
    hesper_add_ordered, hesper_exchange, hesper_load_acquire, hesper_publish)
from hesper.kernel.core.state cimport Core, DeviceState, Stream, device_state
from hesper.kernel.core.tables cimport TRAIT_WITH_LOST_DEVICE, hesper_command


cdef inline bint is_lost(DeviceState *device) noexcept nogil:
    return device != NULL and hesper_load_acquire(&device.lost)


cdef inline DeviceState *device_of(Stream *s) noexcept nogil:
    """The device that the current command is called on, or on a queue of; or null."""
    if s.first != NULL and (s.first.type == HANDLE_VkQueue or s.first.type == HANDLE_VkDevice):
        return device_state(s.core, s.first)
    return NULL


cdef inline void device_lose(Core *core, DeviceState *device,
                             const hesper_command *command) noexcept nogil:
    """Note that a device is lost.  Whoever can must call `settle_lost` soon; any lock may be held.

    command: in which one that was seen.
    """
    if device == NULL:
        return
    hesper_publish(<void **>&device.lost_in, <void *>command.name)
    if hesper_exchange(&device.lost, 1) == 0:
        hesper_add_ordered(&core.lost_devices, 1)
        hesper_add_ordered(&core.lost_unsettled, 1)


cdef inline void settle_lost(Core *core) noexcept nogil:
    """End the waits for devices that were lost, and say so.  No lock is held."""
    cdef DeviceState *device = core.devices
    while device != NULL:
        if is_lost(device) and hesper_exchange(&device.settled, 1) == 0:
            hesper_add_ordered(&core.lost_unsettled, <uint32_t>-1)
            feedback_release(core, device.serial)
            core.up.device_lost(core, device)
        device = device.next


cdef inline void settle_if_lost(Core *core) noexcept nogil:
    if hesper_load_acquire(&core.lost_unsettled):
        settle_lost(core)


cdef inline bint answer_lost(Stream *s) noexcept nogil:
    """Answer a command for which it matters that its device is lost; False: it is to be served."""
    cdef DeviceState *device
    if not s.command.traits & TRAIT_WITH_LOST_DEVICE:
        return False
    device = device_of(s)
    if not is_lost(device):
        return False
    (<int32_t *>(s.parameters + s.command.result_offset))[0] = VK_ERROR_DEVICE_LOST
    if s.first.type == HANDLE_VkQueue:
        # What would have signalled what the guest looks at.
        feedback_release(s.core, device.serial)
    return True
