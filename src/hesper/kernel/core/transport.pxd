"""Commands of the transport about streams in resources: replies, and commands to run."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from hesper_commands cimport (
    COMMAND_vkExecuteCommandStreamsMESA, COMMAND_vkSeekReplyCommandStreamMESA,
    COMMAND_vkSetReplyCommandStreamMESA, VkCommandStreamDescriptionMESA,
    vkExecuteCommandStreamsMESA_parameters, vkSeekReplyCommandStreamMESA_parameters,
    vkSetReplyCommandStreamMESA_parameters)

from hesper.kernel.core.arena cimport Arena, arena_rewind
from hesper.kernel.core.dispatch cimport put_override
from hesper.kernel.core.platform cimport (
    hesper_count, hesper_load_acquire, hesper_populate, pthread_cond_broadcast, pthread_mutex_lock,
    pthread_mutex_unlock)
from hesper.kernel.core.recording cimport piece_end, recording_begin, recording_settle
from hesper.kernel.core.resources cimport stream_find
from hesper.kernel.core.state cimport (
    ERROR_NESTED, ERROR_REPLY, ERROR_RESOURCE, ERROR_STOPPED, Core, Resource, Stream, fail)
from hesper.kernel.core.tables cimport hesper_command
from hesper.kernel.core.taped cimport AnyStream, plain, run_next


cdef enum:
    POPULATED_BYTES = 65536     # at a time, of what replies go to; a multiple of the page size


cdef inline int set_reply(Stream *s) noexcept nogil:
    """vkSetReplyCommandStreamMESA: replies go to a range of a resource from now on."""
    cdef const VkCommandStreamDescriptionMESA *info = (
        <vkSetReplyCommandStreamMESA_parameters *>s.parameters).pStream
    cdef Core *core = s.core
    cdef Resource *resource
    cdef int result = 0
    pthread_mutex_lock(&core.monitor.mutex)
    resource = stream_find(core, info.resourceId)
    if not lies_in(resource, info):
        result = fail(s, ERROR_RESOURCE, NULL, info.resourceId)
    else:
        s.reply_resource = info.resourceId
        s.reply_start = resource.data + info.offset
        s.reply_end = s.reply_start + info.size
        s.reply = s.reply_start
        populate(resource, info.offset, info.size)
    pthread_mutex_unlock(&core.monitor.mutex)
    return result


cdef inline bint lies_in(const Resource *resource,
                         const VkCommandStreamDescriptionMESA *info) noexcept nogil:
    """Whether a resource, null for none, has what is described, at a multiple of 4."""
    return (resource != NULL and info.size <= resource.size
            and info.offset <= resource.size - info.size and not info.offset & 3)


cdef inline void populate(Resource *resource, uint64_t offset, uint64_t size) noexcept nogil:
    """Get pages for a reply, and for those that may follow it.

    Mesa takes one reply after the other from a resource of 1 MiB: every hundredth would wait for a
    page to be cleared, and again while the guest maps it, which it does by pieces of this size if
    the pages are there.
    """
    cdef uint64_t start = offset & ~<uint64_t>(POPULATED_BYTES - 1)
    if size > POPULATED_BYTES:
        size = POPULATED_BYTES
    if offset + size <= resource.populated:
        return
    if start < resource.populated:
        start = resource.populated
    size = resource.size - start
    if size > POPULATED_BYTES:
        size = POPULATED_BYTES
    hesper_populate(resource.data + start, size)
    resource.populated = start + size


cdef inline int seek_reply(Stream *s) noexcept nogil:
    """vkSeekReplyCommandStreamMESA."""
    return seek(s, (<vkSeekReplyCommandStreamMESA_parameters *>s.parameters).position)


cdef inline int seek(Stream *s, uint64_t position) noexcept nogil:
    if s.reply_start == NULL or position > <uint64_t>(s.reply_end - s.reply_start) or position & 3:
        return fail(s, ERROR_REPLY, NULL, position)
    s.reply = s.reply_start + position
    return 0


cdef inline int execute_streams(Stream *s) noexcept nogil:
    """vkExecuteCommandStreamsMESA: run commands that lie in resources."""
    cdef vkExecuteCommandStreamsMESA_parameters *block = (
        <vkExecuteCommandStreamsMESA_parameters *>s.parameters)
    cdef const hesper_command *own_command = s.command
    cdef const uint8_t *cursor = s.cursor
    cdef const uint8_t *end = s.end
    cdef const uint8_t *start = s.start
    cdef const uint8_t *begin = s.begin
    cdef Arena saved = s.arena
    cdef uint32_t i
    cdef int result = 0
    if s.nested or block.streamCount == 0:
        return fail(s, ERROR_NESTED, NULL, block.streamCount)
    s.nested = True
    # The description of the streams lies in the arena; commands inside start behind it.
    for i in range(block.streamCount):
        if block.pReplyPositions != NULL and seek(s, block.pReplyPositions[i]):
            result = -1
            break
        if execute_stream(s, &block.pStreams[i], &saved):
            result = -1
            break
    s.nested = False
    if result == 0:
        s.command = own_command
        s.first = NULL
        s.begin = begin
        s.parameters = <uint8_t *>block
        s.cursor = cursor
        s.end = end
        s.start = start
    return result


cdef inline int stream_commands(AnyStream *which, Arena *mark) noexcept nogil:
    """Run the rest of a stream."""
    cdef Stream *s = plain(which)
    cdef const uint8_t *piece
    while s.cursor < s.end:
        piece = piece_end(s)
        while s.cursor < piece:
            if run_next(which) < 0:
                recording_settle(s)
                return -1
            arena_rewind(&s.arena, mark)
            if hesper_load_acquire(&s.core.fatal):
                recording_settle(s)
                return fail(s, ERROR_STOPPED, NULL, 0)
        recording_settle(s)
    return 0


cdef inline int execute_stream(Stream *s, const VkCommandStreamDescriptionMESA *info,
                               Arena *mark) noexcept nogil:
    """Run the commands of one slice of a resource.

    What lies in it, such as an image's contents, may be copied besides what commands may decode to:
    the guest was charged for it.
    """
    cdef size_t limit = s.arena.limit
    cdef Core *core = s.core
    cdef Resource *resource
    cdef int result
    if info.size == 0:
        return 0
    pthread_mutex_lock(&core.monitor.mutex)
    resource = stream_find(core, info.resourceId)
    if not lies_in(resource, info):
        pthread_mutex_unlock(&core.monitor.mutex)
        return fail(s, ERROR_RESOURCE, NULL, info.resourceId)
    resource.users += 1
    s.start = resource.data + info.offset
    pthread_mutex_unlock(&core.monitor.mutex)
    s.cursor = s.start
    s.end = s.start + info.size
    s.arena.limit = limit + info.size
    recording_begin(s)
    if core.up.run_stream != NULL:
        result = core.up.run_stream(s, mark)
    else:
        result = stream_commands(s, mark)
    s.arena.limit = limit
    hesper_count(&s.bytes, info.size)
    pthread_mutex_lock(&core.monitor.mutex)
    resource.users -= 1
    pthread_cond_broadcast(&core.monitor.condition)
    pthread_mutex_unlock(&core.monitor.mutex)
    return result


cdef inline void transport_overrides(Core *core) noexcept nogil:
    put_override(core, COMMAND_vkExecuteCommandStreamsMESA, execute_streams)
    put_override(core, COMMAND_vkSetReplyCommandStreamMESA, set_reply)
    put_override(core, COMMAND_vkSeekReplyCommandStreamMESA, seek_reply)
