# What the parts of the kernel share: a context's core, its resources, a stream's state.

cdef enum:
    DEPTH_LIMIT = 24            # structs in structs
    CHAIN_LIMIT = 256           # structs in one pNext chain
    STRING_LIMIT = 1 << 20
    ENGINE_RESOURCES = 4096     # slots of the hash table
    FEEDBACK_SLOTS = 1024       # of the hash table by buffer
    HEARD = 64                  # dead objects that are kept though the guest has heard of it
    TIMELINES = 64              # the CPU's (0) and 63 for queues
    DEVICES = 16384             # that a context may make in its life


cdef enum Error:
    ERROR_NONE = 0
    ERROR_SHORT                 # the stream ends inside a command
    ERROR_COMMAND               # unknown command number
    ERROR_REFUSED
    ERROR_NULL                  # a null pointer or handle where there must be none
    ERROR_POINTER               # a pointer where there must be null
    ERROR_OBJECT                # no object with that id
    ERROR_TYPE                  # an object of another type
    ERROR_DEVICE                # an object of another device
    ERROR_LENGTH                # an array length that its count field contradicts
    ERROR_STYPE
    ERROR_CHAIN
    ERROR_DEPTH
    ERROR_TAG
    ERROR_MEMORY                # the command decodes to more than the arena holds
    ERROR_STRING
    ERROR_FUNCTION              # the driver lacks the command
    ERROR_ID                    # an id that is 0 or taken
    ERROR_LIMIT                 # too many objects
    ERROR_REPLY                 # no reply stream, or no room in it
    ERROR_RESOURCE
    ERROR_NESTED
    ERROR_RING
    ERROR_PLACE                 # a transport command that came over the wrong stream
    ERROR_HANDLER               # a Python handler raised; the reason is in Core.reason
    ERROR_DEAD                  # an object that the driver has not made: `dead.pxi`
    ERROR_STOPPED               # the context is being closed


cdef enum HotKind:
    HOT_NO = 0                  # everything is needed: `serve` or a handler
    HOT_RECORD                  # records into a command buffer: decode, call, done
    HOT_WORDS                   # the same, and all it has beside the command buffer is one copy
    # HOT_RECORD, and it may be for what a guest looks at: `feedback.pxi`.
    HOT_COPY                    # vkCmdCopyBuffer
    HOT_FILL                    # vkCmdFillBuffer
    HOT_QUERIES                 # vkCmdCopyQueryPoolResults


cdef struct Hot:
    # What the loop needs of a command, by its number on the wire: 16 bytes instead of 100.
    hesper_call_fn call
    uint16_t index              # into hesper_commands
    uint16_t words              # HOT_WORDS: bytes to copy
    uint8_t kind
    uint8_t patient             # the driver or the guest may take its time over it


cdef enum Stage:
    # What the thread of a stream is doing: see `Engine.sample`.
    STAGE_ASLEEP = 0            # blocked until the guest notifies
    STAGE_WAIT                  # spins, yields or naps until there is a command
    STAGE_DECODE
    STAGE_DRIVER
    STAGE_REPLY
    STAGE_HANDLER
    STAGES


cdef struct Resource:
    uint32_t id
    bint is_stream              # rings, replies and command streams may lie in it
    RegionCore *region          # one ownership; null: the memory is the caller's
    uint32_t users              # streams that read it now
    uint8_t *data               # of streams
    uint64_t size
    uint64_t populated          # bytes, from the start, that replies find pages for
    Resource *chain


cdef struct QueueState:
    hesper_monitor monitor          # one thread at a time submits; guards what follows
    uint64_t calls                  # that it was given so far
    Fences *fences                  # null: no timeline is bound to it
    TimelineCore *timeline          # the same
    bint watched                    # the timeline's waiter knows that it has something to do
    DeviceState *device
    QueueState *next


cdef struct DeviceState:
    uint64_t id
    uint32_t serial
    uint32_t lost
    uint32_t settled                # whoever waits for it has been told
    const char *lost_in             # command; null while it is not lost
    uint32_t buffer_handle_types    # what VkExternalMemoryBufferCreateInfo is to say, 0: no change
    uint32_t buffer_always
    # The guest's memory types; masks have a bit for each.
    uint32_t type_count             # 0: they are the driver's own
    uint8_t type_host[32]           # the driver's memory type of each
    uint8_t type_heap[32]
    uint32_t shared_types           # those in shared memory
    uint32_t native_types           # those that are the driver's own memory
    uint32_t sparse_types           # those that sparse buffers can be bound to
    # How shared memory is imported here; 0: only handlers do.
    uint32_t host_handle_type
    uint64_t host_alignment
    uint64_t host_granule
    DeviceState *next


cdef struct Core:
    # One context, without Python.
    Objects objects
    hesper_monitor monitor          # guards resources, rings; signalled when a user is done
    Resource *resources[ENGINE_RESOURCES]
    uint32_t resource_count
    uint32_t resource_limit
    StoreCore *store
    RingCore *rings
    DeviceState *devices            # all there ever were
    uint32_t lost_devices
    uint32_t lost_unsettled         # of them
    uint8_t *with_lost_device       # by command index: it is answered when its device is lost
    uint8_t *harmless               # by command index: it may be left out, see `dead.pxi`
    uint8_t *failure_told           # by command index
    uint64_t heard[HEARD]           # dead objects that the guest knows to be none; a ring
    uint32_t heard_next
    uint32_t heard_lock
    Feedback *feedback[FEEDBACK_SLOTS]
    uint32_t feedback_lock
    uint32_t feedback_count
    uint64_t lookout_ns             # for how long a queue may work before somebody looks at it
    TimelineCore *timelines[TIMELINES]  # by ring_idx; null: bound to no queue
    uint32_t fatal
    uint32_t stopping
    hesper_timer watch_timer        # when ALIVE is set next
    uint64_t watch_ns               # how often it is
    RingCore *ahead_of              # the ring that the context's own stream has run ahead of
    uint32_t ahead_seqno            # and where that ring has to be
    bint runs_ahead                 # it may do so
    uint64_t patience_ns            # see patience.pxi; 0: processors are few
    uint64_t crowded_until
    size_t arena_limit
    uint32_t changes_layouts        # see layouts.pxi
    uint8_t *handled                # by command index: a Python handler exists
    Hot *hot                        # by command number
    void *engine                    # the Engine, borrowed
    char reason[384]
    uint64_t replies
    uint64_t handler_calls


cdef struct Stream:
    # Where commands are read from and replies go; one a ring, one for the context itself.
    const uint8_t *cursor
    const uint8_t *end
    const uint8_t *start            # of the current span, for offsets in messages
    Core *core
    RingCore *ring                  # null for the context's own stream
    Arena arena
    # The command buffer that was recorded into last: streams seldom change it.
    Entry *recorded
    # The command being decoded.
    const hesper_command *command
    uint8_t *parameters
    Entry *first                    # the handle the command is called on
    uint64_t first_id
    Entry *parent                   # the pool of new objects
    uint64_t parent_id
    uint64_t *victims               # ids to forget
    uint32_t victim_count
    uint32_t device                 # serial all handles must share
    uint32_t depth
    bint nested
    bint wants_reply
    # Dead objects, see `dead.pxi`.
    bint lenient                # they are let through
    bint dead_first             # the command is called on one
    bint dead_argument          # it is given one
    int32_t dead                # what that failed with
    # Replies.
    uint8_t *reply
    uint8_t *reply_end
    uint8_t *reply_start
    uint32_t reply_resource
    # What went wrong.
    Error error
    const hesper_op *error_op
    uint64_t error_value
    uint64_t commands
    uint64_t bytes
    uint32_t stage              # a Stage
    uint32_t number             # of the command it is about


cdef struct RingCore:
    Stream stream
    hesper_monitor monitor
    uint64_t id
    uint32_t resource
    uint32_t *head
    uint32_t *tail
    uint32_t *status
    uint8_t *extra
    uint64_t extra_size
    uint8_t *buffer
    uint32_t size
    uint32_t mask
    uint32_t position               # consumed up to here; what head becomes
    uint32_t published
    uint32_t current                # where the command that is being run begins
    uint8_t *linear                 # commands that wrap around are put together here
    uint64_t idle_ns
    uint64_t virtqueue_seqno
    uint32_t notified
    uint32_t owned                  # a thread is running its commands
    uint32_t borrowed               # and that is not the ring's own
    uint32_t stopping
    uint32_t waited                 # who wants to hear of every publication: WAITED_BY_...
    Deferred *deferred              # fences it has not come to; its monitor guards them
    Deferred *deferred_last
    uint32_t deferred_count
    bint asking                     # a thread asks for those that it has come to
    bint monitored                  # its guest asked for signs of life
    RingCore *chain


cdef inline int fail(Stream *s, Error error, const hesper_op *op, uint64_t value) noexcept nogil:
    """Note the first error of a command; always -1."""
    if s.error == ERROR_NONE:
        s.error = error
        s.error_op = op
        s.error_value = value
    return -1
