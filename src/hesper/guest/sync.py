"""Fences and semaphores that leave the guest as sync files.

Mesa keeps the sync files to itself.  What the host has to do is what importing or exporting one
does to the payload: an export leaves a fence or semaphore unsignalled, an import of "already
signalled" leaves it signalled.  Where the host has no sync files, that is emulated.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hesper.guest.handlers import handles
from hesper.kernel.errors import ProtocolError
from hesper.kernel.views import Array, Scratch, View
from hesper.vk.enumerants import (
    VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
    VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.guest.device import Device
    from hesper.kernel.handlers import Call

MOST_RETIRED = 4096
"""Replaced fences that a guest may have waiting for the driver."""


@handles("vkCreateFence")
def create_fence(context: Context, call: Call) -> None:
    """Make a fence; that it is to be exported concerns only hosts with sync files."""
    device = context.device(call.id("device"))
    export = call.args.pCreateInfo.find_("VkExportFenceCreateInfo")
    if export is not None:
        export.handleTypes &= VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT
        if not device.physical.has_sync_fd_fences or not export.handleTypes:
            call.args.pCreateInfo.remove_("VkExportFenceCreateInfo")
    call.run()


@handles("vkCreateSemaphore")
def create_semaphore(context: Context, call: Call) -> None:
    """Make a semaphore; that it is to be exported concerns only hosts with sync files."""
    device = context.device(call.id("device"))
    export = call.args.pCreateInfo.find_("VkExportSemaphoreCreateInfo")
    if export is not None:
        export.handleTypes &= VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT
        if not device.physical.has_sync_fd_semaphores or not export.handleTypes:
            call.args.pCreateInfo.remove_("VkExportSemaphoreCreateInfo")
    call.run()


@handles("vkResetFenceResourceMESA")
def reset_fence_resource(context: Context, call: Call) -> None:
    """The guest has exported a fence: leave it unsignalled."""
    device = context.device(call.id("device"))
    if device.physical.has_sync_fd_fences:
        info = Scratch().new(
            "VkFenceGetFdInfoKHR",
            fence=call.args.fence,
            handleType=VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
        )
        _export(context, device, "vkGetFenceFdKHR", info)
    else:
        _replace_fence(context, device, call)


def _replace_fence(context: Context, device: Device, call: Call) -> None:
    """Put a new fence under the guest's id; the driver may still have to signal the old one."""
    if len(device.retired_fences) >= device.sweep_fences_at:
        _destroy_signalled(device)
    old = context.engine.objects.lookup(call.id("fence"), "VkFence")
    scratch = Scratch()
    made = scratch.array("VkFence", 1)
    info = scratch.new("VkFenceCreateInfo")
    result = device.table.call("vkCreateFence", device.handle, info, None, made)
    if result != VK_SUCCESS:
        context.engine.devices.lose(device.id, "vkCreateFence")
        return
    if old is None or context.engine.objects.take(old) is None:
        device.table.call("vkDestroyFence", device.handle, made[0], None)
        raise ProtocolError("a fence was destroyed while it was exported")
    device.retired_fences.append(old.handle)
    context.engine.objects.add(
        old.id, "VkFence", made[0], device=device.id, parent=device.id, table=device.table
    )


def _destroy_signalled(device: Device) -> None:
    """Destroy replaced fences that the driver is through with."""
    waiting = []
    for fence in device.retired_fences:
        if device.table.call("vkGetFenceStatus", device.handle, fence) == VK_SUCCESS:
            device.table.call("vkDestroyFence", device.handle, fence, None)
        else:
            waiting.append(fence)
    if len(waiting) >= MOST_RETIRED:
        raise ProtocolError(f"{len(waiting)} exported fences that nobody signals")
    device.retired_fences = waiting
    device.sweep_fences_at = max(64, 2 * len(waiting))


@handles("vkWaitSemaphoreResourceMESA")
def wait_semaphore_resource(context: Context, call: Call) -> None:
    """The guest has exported a semaphore: leave it unsignalled."""
    device = context.device(call.id("device"))
    if device.physical.has_sync_fd_semaphores:
        info = Scratch().new(
            "VkSemaphoreGetFdInfoKHR",
            semaphore=call.args.semaphore,
            handleType=VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
        )
        _export(context, device, "vkGetSemaphoreFdKHR", info)
    else:
        batch = Scratch().array("VkSubmitInfo", 1)
        batch[0].pWaitSemaphores = [call.args.semaphore]
        batch[0].pWaitDstStageMask = [VK_PIPELINE_STAGE_ALL_COMMANDS_BIT]
        batch[0].waitSemaphoreCount = 1
        _submit(context, device, batch)


@handles("vkImportSemaphoreResourceMESA")
def import_semaphore_resource(context: Context, call: Call) -> None:
    """The guest has imported a sync file and waited for it: leave the semaphore signalled."""
    device = context.device(call.id("device"))
    source = call.args.pImportSemaphoreResourceInfo
    if source.resourceId:
        raise ProtocolError(f"semaphore payloads in resources (here {source.resourceId})")
    # Whoever draws frames does this with what each image comes with.
    context.frames += 1
    if device.physical.has_sync_fd_semaphores:
        info = Scratch().new(
            "VkImportSemaphoreFdInfoKHR",
            semaphore=source.semaphore,
            flags=VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
            handleType=VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
            fd=-1,  # stands for a sync file that is signalled already
        )
        result = device.table.call("vkImportSemaphoreFdKHR", device.handle, info)
        if result != VK_SUCCESS:
            context.engine.devices.lose(device.id, "vkImportSemaphoreFdKHR")
    else:
        batch = Scratch().array("VkSubmitInfo", 1)
        batch[0].pSignalSemaphores = [source.semaphore]
        batch[0].signalSemaphoreCount = 1
        _submit(context, device, batch)


def _export(context: Context, device: Device, command: str, info: View) -> None:
    """Export a payload as a sync file and drop that; what is left is the side effect.

    The guest cannot be told that it failed, and would wait for what does not come.
    """
    fd = Scratch().array("int32_t", 1)
    result = device.table.call(command, device.handle, info, fd)
    if result != VK_SUCCESS:
        context.engine.devices.lose(device.id, command)
    elif fd[0] >= 0:
        os.close(fd[0])


def _submit(context: Context, device: Device, batch: Array) -> None:
    """Submit a batch that only waits or signals, to whichever queue there is."""
    if context.engine.devices.is_lost(device.id):
        return
    result = context.engine.devices.queue_call(device.any_queue(), "vkQueueSubmit", 1, batch, 0)
    if result != VK_SUCCESS:
        context.engine.devices.lose(device.id, "vkQueueSubmit")
