"""Who would wait for what came before the last seconds: fences and semaphores, as they stood.

What was submitted before counts as done: a replay waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hesper.trace.submits import batches
from hesper.vk.enumerants import VK_FENCE_CREATE_SIGNALED_BIT, VK_SEMAPHORE_TYPE_TIMELINE

if TYPE_CHECKING:
    from hesper.trace.decoded import Decoded


class Waits:
    """States of fences and semaphores, by ids."""

    def __init__(self) -> None:
        """There are none."""
        self._devices: dict[int, int] = {}
        self._queues: dict[int, int] = {}
        self._fences: dict[int, tuple[bool, bool]] = {}
        """Whether each was made signalled, and is."""
        self._timelines: dict[int, tuple[int, int]] = {}
        """What each was made with, and has."""
        self._binary: dict[int, bool] = {}
        self._submitted: dict[int, int] = {}
        self._notes: dict[str, Callable[[int, dict[str, Any]], None]] = {
            "vkCreateFence": self._create_fence,
            "vkCreateSemaphore": self._create_semaphore,
            "vkGetDeviceQueue": self._queue,
            "vkGetDeviceQueue2": self._queue,
            "vkQueueSubmit": self._submit,
            "vkQueueSubmit2": self._submit,
            "vkQueueBindSparse": self._submit,
            "vkResetFences": self._reset,
            "vkResetFenceResourceMESA": self._reset,
            "vkSignalSemaphore": self._signal_now,
            "vkWaitSemaphoreResourceMESA": self._wait_now,
            "vkImportSemaphoreResourceMESA": self._import,
        }

    def notes(self, name: str) -> bool:
        """Whether commands of that name are to be noted."""
        return name in self._notes

    def forget(self, id_: Any) -> None:
        """Take note that an object is gone."""
        for states in (
            self._devices,
            self._queues,
            self._fences,
            self._timelines,
            self._binary,
            self._submitted,
        ):
            states.pop(id_, None)

    def was_submitted(self, buffer: int, since: int) -> bool:
        """Whether a command buffer was submitted since a command's number."""
        return self._submitted.get(buffer, -1) >= since

    def note(self, found: Decoded) -> None:
        """Take note of a command that has succeeded."""
        what = self._notes.get(found.name)
        if what is not None:
            what(found.number, found.parameters or {})

    def commands(self, alive: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """What brings those that live to where they stand: names and parameters."""
        queues = {device: queue for queue, device in self._queues.items() if queue in alive}
        unsignalled: dict[int, list[int]] = {}
        for fence, (made, is_signalled) in self._fences.items():
            device = self._devices.get(fence, 0)
            if made and not is_signalled:
                unsignalled.setdefault(device, []).append(fence)
            elif is_signalled and not made and device in queues:
                yield "vkQueueSubmit", {"queue": queues[device], "submitCount": 0, "fence": fence}
        for device, fences in unsignalled.items():
            found = {"device": device, "fenceCount": len(fences), "pFences": fences}
            yield "vkResetFences", found
        for semaphore, (first, value) in self._timelines.items():
            if value > first:
                info = {"semaphore": semaphore, "value": value}
                device = self._devices[semaphore]
                yield "vkSignalSemaphore", {"device": device, "pSignalInfo": info}
        for semaphore, is_pending in self._binary.items():
            device = self._devices.get(semaphore, 0)
            if is_pending and device in queues:
                submit = {"signalSemaphoreCount": 1, "pSignalSemaphores": [semaphore]}
                yield (
                    "vkQueueSubmit",
                    {"queue": queues[device], "submitCount": 1, "pSubmits": [submit], "fence": 0},
                )

    def _create_fence(self, _: int, parameters: dict[str, Any]) -> None:
        fence, info = parameters["pFence"], parameters.get("pCreateInfo") or {}
        signalled = bool((info.get("flags") or 0) & VK_FENCE_CREATE_SIGNALED_BIT)
        self._devices[fence] = parameters["device"]
        self._fences[fence] = (signalled, signalled)

    def _create_semaphore(self, _: int, parameters: dict[str, Any]) -> None:
        semaphore = parameters["pSemaphore"]
        self._devices[semaphore] = parameters["device"]
        for name, chained in (parameters.get("pCreateInfo") or {}).get("pNext") or []:
            if (
                name == "VkSemaphoreTypeCreateInfo"
                and chained.get("semaphoreType") == VK_SEMAPHORE_TYPE_TIMELINE
            ):
                value = chained.get("initialValue") or 0
                self._timelines[semaphore] = (value, value)
                return
        self._binary[semaphore] = False

    def _queue(self, _: int, parameters: dict[str, Any]) -> None:
        self._queues.setdefault(parameters["pQueue"], parameters["device"])

    def _submit(self, number: int, parameters: dict[str, Any]) -> None:
        for batch in batches(parameters):
            for buffer in batch.buffers:
                self._submitted[buffer] = number
            for semaphore, _ in batch.waits:
                self._wait(semaphore)
            for semaphore, value in batch.signals:
                self._signal(semaphore, value)
        self._fence(parameters.get("fence") or 0, is_signalled=True)

    def _reset(self, _: int, parameters: dict[str, Any]) -> None:
        for fence in parameters.get("pFences") or [parameters.get("fence") or 0]:
            self._fence(fence, is_signalled=False)

    def _signal_now(self, _: int, parameters: dict[str, Any]) -> None:
        info = parameters.get("pSignalInfo") or {}
        self._signal(info.get("semaphore") or 0, info.get("value") or 0)

    def _wait_now(self, _: int, parameters: dict[str, Any]) -> None:
        self._wait(parameters["semaphore"])

    def _import(self, _: int, parameters: dict[str, Any]) -> None:
        info = parameters.get("pImportSemaphoreResourceInfo") or {}
        self._signal(info.get("semaphore") or 0, 0)

    def _fence(self, fence: int, *, is_signalled: bool) -> None:
        if fence in self._fences:
            self._fences[fence] = (self._fences[fence][0], is_signalled)

    def _signal(self, semaphore: int, value: int) -> None:
        if semaphore in self._timelines:
            made, before = self._timelines[semaphore]
            self._timelines[semaphore] = (made, max(before, value))
        elif semaphore in self._binary:
            self._binary[semaphore] = True

    def _wait(self, semaphore: int) -> None:
        if semaphore in self._binary:
            self._binary[semaphore] = False
