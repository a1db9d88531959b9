"""What the guest can share: external memory, fences and semaphores.

To the guest, shared memory is a dma-buf (Mesa knows no other kind a renderer could have).  On the
host it is whatever the memory strategy makes of it, so questions and answers are translated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesper.guest.errors import VulkanError
from hesper.guest.handlers import handles
from hesper.guest.linear import can_be_attached, check_linear
from hesper.guest.modifiers import translate_question
from hesper.guest.physical_device import physical_device
from hesper.guest.sparse import check_question
from hesper.guest.staging import make_tiled_question, texel_size
from hesper.vk.enumerants import (
    VK_ERROR_FORMAT_NOT_SUPPORTED,
    VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT,
    VK_EXTERNAL_FENCE_FEATURE_IMPORTABLE_BIT,
    VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT,
    VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT,
    VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT,
    VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT,
    VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
    VK_IMAGE_TILING_LINEAR,
    VK_IMAGE_TYPE_2D,
    VK_SEMAPHORE_TYPE_BINARY,
    VK_SUCCESS,
)

if TYPE_CHECKING:
    from hesper.guest.context import Context
    from hesper.kernel.handlers import Call
    from hesper.kernel.views import View

DMA_BUF = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT


@handles("vkGetPhysicalDeviceExternalBufferProperties")
def get_external_buffer_properties(context: Context, call: Call) -> None:
    """Whether buffers can lie in shared memory."""
    physical = physical_device(context, call)
    question = call.args.pExternalBufferInfo
    answer = call.args.pExternalBufferProperties.externalMemoryProperties
    if question.handleType != DMA_BUF:
        _answer_memory(answer, can_share=False)
        return
    question.handleType = physical.strategy.handle_type
    call.invoke()
    _translate(answer)


@handles("vkGetPhysicalDeviceImageFormatProperties2")
def get_image_format_properties2(context: Context, call: Call) -> None:
    """What an image can be, and whether it can lie in shared memory."""
    physical = physical_device(context, call)
    info = call.args.pImageFormatInfo
    check_question(physical, info.flags, info.type)
    is_modified = info.tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT
    translate_question(info)
    question = info.find_("VkPhysicalDeviceExternalImageFormatInfo")
    wanted = question.handleType if question is not None else 0
    if wanted not in {0, DMA_BUF}:
        raise VulkanError(VK_ERROR_FORMAT_NOT_SUPPORTED, f"external images of type {wanted:#x}")
    if not wanted and not is_modified:
        check_linear(
            physical, format_=info.format, tiling=info.tiling, usage=info.usage, flags=info.flags
        )
        call.invoke()
        return
    answer = call.args.pImageFormatProperties.find_("VkExternalImageFormatProperties")
    is_able = info.tiling != VK_IMAGE_TILING_LINEAR or can_be_attached(
        physical, info.format, info.usage, info.flags
    )
    if is_able and physical.shares_images(info.tiling):
        if question is not None and wanted:
            question.handleType = physical.strategy.handle_type
        if call.invoke() == VK_SUCCESS:
            if answer is not None:
                _translate(answer.externalMemoryProperties)
            return
    if info.type != VK_IMAGE_TYPE_2D or texel_size(info.format) is None:
        raise VulkanError(VK_ERROR_FORMAT_NOT_SUPPORTED, "such images cannot lie in shared memory")
    _ask_for_stage(call, answer)


def _ask_for_stage(call: Call, answer: View | None) -> None:
    """What an image can be that is staged (`staging`)."""
    info = call.args.pImageFormatInfo
    info.remove_("VkPhysicalDeviceExternalImageFormatInfo")
    make_tiled_question(info)
    if call.invoke() != VK_SUCCESS:
        return
    limits = call.args.pImageFormatProperties.imageFormatProperties
    limits.maxMipLevels = limits.maxArrayLayers = limits.sampleCounts = 1
    if answer is not None:
        _answer_memory(answer.externalMemoryProperties, can_share=True)


def _translate(answer: View) -> None:
    """Turn the host's VkExternalMemoryProperties into those of a dma-buf.

    What can be imported on the host can be shared both ways: the memory is made by us.
    """
    features = answer.externalMemoryFeatures
    _answer_memory(answer, can_share=bool(features & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT))


def _answer_memory(answer: View, *, can_share: bool) -> None:
    both = VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT
    answer.externalMemoryFeatures = both if can_share else 0
    answer.exportFromImportedHandleTypes = DMA_BUF if can_share else 0
    answer.compatibleHandleTypes = DMA_BUF if can_share else 0


@handles("vkGetPhysicalDeviceExternalSemaphoreProperties")
def get_external_semaphore_properties(context: Context, call: Call) -> None:
    """Binary semaphores can be exported and imported as sync files; see `sync`."""
    physical_device(context, call)
    question = call.args.pExternalSemaphoreInfo
    kind = question.find_("VkSemaphoreTypeCreateInfo")
    handle_type = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT
    is_binary = kind is None or kind.semaphoreType == VK_SEMAPHORE_TYPE_BINARY
    can_share = question.handleType == handle_type and is_binary
    answer = call.args.pExternalSemaphoreProperties
    answer.exportFromImportedHandleTypes = handle_type if can_share else 0
    answer.compatibleHandleTypes = handle_type if can_share else 0
    answer.externalSemaphoreFeatures = (
        VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT
        if can_share
        else 0
    )


@handles("vkGetPhysicalDeviceExternalFenceProperties")
def get_external_fence_properties(context: Context, call: Call) -> None:
    """Fences can be exported as sync files; see `sync`."""
    physical_device(context, call)
    handle_type = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT
    can_share = call.args.pExternalFenceInfo.handleType == handle_type
    answer = call.args.pExternalFenceProperties
    answer.exportFromImportedHandleTypes = handle_type if can_share else 0
    answer.compatibleHandleTypes = handle_type if can_share else 0
    answer.externalFenceFeatures = (
        VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_FENCE_FEATURE_IMPORTABLE_BIT
        if can_share
        else 0
    )
