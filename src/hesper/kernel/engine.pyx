# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False, freethreading_compatible=False
"""The compiled kernel; `engine.pyi` says what it offers.

A command's way: `ring.pxi` (from shared memory) -> `dispatch.pxi` -> `decode.pxi` -> the driver,
called from `dispatch.pxi` through the stubs made from the registry -> `encode.pxi`.
"""

import threading
import traceback

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset, strcmp

from hesper.kernel.wire cimport *


class ProtocolError(Exception):
    pass


class VulkanLoadError(Exception):
    pass


include "arena.pxi"
include "objects.pxi"
include "state.pxi"
include "store.pxi"
include "structs.pxi"
include "decode.pxi"
include "encode.pxi"
include "fences.pxi"
include "feedback.pxi"
include "lost.pxi"
include "dead.pxi"
include "dispatch.pxi"
include "buffers.pxi"
include "layouts.pxi"
include "memory.pxi"
include "questions.pxi"
include "resources.pxi"
include "patience.pxi"
include "watch.pxi"
include "ring.pxi"
include "sample.pxi"
include "timeline.pxi"
include "deferred.pxi"
include "views.pxi"
include "vulkan.pxi"
include "call.pxi"
include "crash.pxi"
include "describe.pxi"
include "ring_layout.pxi"
include "context.pxi"
include "sink.pxi"


def commands():
    found = []
    for i in range(hesper_command_count):
        c = &hesper_commands[i]
        if c.number < 0:
            continue
        how = "refused" if c.refused != NULL else "kernel" if served_here(i) else "python"
        found.append((c.number, c.name.decode(), how))
    return sorted(found)


cdef bint served_here(uint32_t index):
    """Whether the kernel can serve a command without a handler."""
    if hesper_commands[index].level in (LEVEL_DEVICE, LEVEL_INSTANCE):
        return True
    return index in (EXECUTE_STREAMS, SET_REPLY, SEEK_REPLY, NOTIFY_RING, WRITE_RING_EXTRA,
                     SUBMIT_VIRTQUEUE_SEQNO, WAIT_VIRTQUEUE_SEQNO, WAIT_RING_SEQNO)


def struct_names():
    return [hesper_structs[i].name.decode() for i in range(hesper_struct_count)]
