"""Sharing the GPU's time as Python sees it; `shares.pyi`."""

import threading

from libc.stdint cimport uint64_t

from hesper_commands cimport HANDLE_VkDevice

from hesper.kernel.core.objects cimport Entry, object_find
from hesper.kernel.core.platform cimport (
    pthread_cond_broadcast, pthread_mutex_lock, pthread_mutex_unlock)
from hesper.kernel.core.state cimport Share, device_state
from hesper.kernel.runtime cimport CoreRef, device_forget, meter_serve


cdef class Shares:
    cdef CoreRef ref
    cdef object thread

    def __init__(self, CoreRef ref not None):
        self.ref = ref

    def join(self, uint64_t page, int wake):
        cdef Share *share = &self.ref.core.share
        share.wake = wake
        share.page = <uint64_t *>page
        self.thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self.thread.start()

    def _run(self):
        """Body of the thread that looks at fences."""
        with nogil:
            meter_serve(self.ref.core)

    def forget(self, uint64_t device):
        cdef Entry *entry = object_find(&self.ref.core.objects, device)
        if entry == NULL or entry.type != HANDLE_VkDevice:
            raise KeyError(f"there is no device {device}")
        with nogil:
            device_forget(self.ref.core, device_state(self.ref.core, entry))

    def leave(self):
        cdef Share *share = &self.ref.core.share
        if self.thread is None:
            return
        with nogil:
            pthread_mutex_lock(&share.monitor.mutex)
            share.stopping = True
            pthread_cond_broadcast(&share.monitor.condition)
            pthread_mutex_unlock(&share.monitor.mutex)
        self.thread.join()
        self.thread = None
