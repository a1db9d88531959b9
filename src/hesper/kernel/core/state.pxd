"""What the parts of the core share: one context, its streams, rings, queues and timelines.

Only what lies in memory, and how a command's first error is noted; who changes it is said where it
is changed.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from hesper_virtgpu cimport MAX_TIMELINES

from hesper.kernel.core.arena cimport Arena
from hesper.kernel.core.objects cimport Entry, Extent, Objects
from hesper.kernel.core.platform cimport hesper_monitor, hesper_timer
from hesper.kernel.core.polling cimport Poll, Polling
from hesper.kernel.core.set_layouts cimport Seen
from hesper.kernel.core.shm_pool cimport ShmPool, ShmRegion
from hesper.kernel.core.tables cimport (
    FACTS, hesper_call_fn, hesper_command, hesper_op, hesper_relation)
from hesper.kernel.core.tape cimport Tape, TapeRunning


cdef struct Core
cdef struct DeviceState
cdef struct Hot
cdef struct QueueState
cdef struct RingCore
cdef struct Stream
cdef struct TimelineCore


cdef enum:
    DEPTH_LIMIT = 24            # structs in structs
    CHAIN_LIMIT = 256           # structs in one pNext chain
    STRING_LIMIT = 1 << 20
    ENGINE_RESOURCES = 1 << 12  # slots of the hash table
    FEEDBACK_SLOTS = 1 << 10    # of the hash table by buffer
    STALE_FENCES = 8            # in flight that nobody wants any more
    NOTED = 8                   # objects: more than there are beside each other in a struct
    HEARD = 64                  # dead objects that are kept though the guest has heard of it
    TIMELINES = MAX_TIMELINES   # the CPU's (0) and those of queues
    DEVICES = 16384             # that a context may make in its life
    QUEUES = 64                 # of a device
    MEASURED = 4                # handles of one struct or command whose size counts
    SET_SLOTS = 1024            # of the hash table by descriptor set layout


cdef enum:
    # Bits of a ring's status, as the guest sees it.
    STATUS_IDLE = 1
    STATUS_FATAL = 2
    STATUS_ALIVE = 4


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
    ERROR_DEAD                  # an object that the driver has not made: `dead.pxd`
    ERROR_RELATION              # numbers that do not fit together: `relations.pxd`
    ERROR_TWICE                 # a struct twice in one chain
    ERROR_ALIGNMENT             # an offset into memory that the object may not have
    ERROR_BOUND                 # a place outside of an object, or beyond a limit
    ERROR_SET                   # what a SetFault says
    ERROR_CODE                  # what a CodeFault says
    ERROR_STOPPED               # the context is being closed


cdef enum SetFault:
    # What is wrong with a descriptor, or a layout: `messages.pyx` has the sentences.
    SET_GONE = 0                # another ring has destroyed the set
    SET_NO_BINDING
    SET_BEYOND
    SET_TYPE
    SET_STAGES
    SET_OTHER_TYPE
    SET_NO_LAYOUT
    SET_OTHER
    SET_PUSHED
    SET_DYNAMIC
    SET_TWICE
    SET_NOT_LAST
    SET_FIXED
    SET_NO_TYPES
    SET_UNSUPPORTED
    SET_VARIABLE
    SET_LIMIT
    SET_REACH
    SET_PLANES


cdef enum CodeFault:
    # What is wrong with a shader's words: `messages.pyx` has the sentences.
    CODE_SHORT = 0
    CODE_MAGIC
    CODE_VERSION
    CODE_BOUND
    CODE_SCHEMA
    CODE_LENGTH


# Looks at the command at the cursor, which may be for what a guest looks at: `feedback.pxd`.
ctypedef void (*note_fn)(Stream *s) noexcept nogil


cdef struct Hot:
    # What the loop needs of a command, by its number on the wire: 24 bytes instead of 100.
    hesper_call_fn call
    note_fn note                # where it `records`; mostly null
    uint16_t index              # into hesper_commands
    uint16_t words              # bytes to copy, where that is all there is to decode
    uint8_t records             # into a command buffer, and nothing else
    uint8_t may_block           # the driver or the guest may take its time over it


# Runs a command that is decoded: 0, -1 on an error, or LEFT_TO_HANDLER.
ctypedef int (*override_fn)(Stream *s) noexcept nogil


cdef struct Row:
    # What is special about a command, by its index.
    override_fn override        # null: what `serve` does is all; see `overrides.pxd`
    bint handled                # a Python handler exists, and is asked
    bint failure_told
    bint drop_told              # that it has said too much, which was left out


cdef enum Stage:
    # What the thread of a stream is doing: see `Engine.sample`.
    STAGE_ASLEEP = 0            # blocked until the guest notifies
    STAGE_WAIT                  # spins, yields or naps until there is a command
    STAGE_DECODE
    STAGE_DRIVER
    STAGE_REPLY
    STAGE_HANDLER
    STAGES


cdef enum SpanKind:
    SPAN_STREAM = 1             # a command; track: 0 the socket, else a ring; value: stage, number
    SPAN_QUEUE                  # work of a queue; track: its timeline; value: which submission
    SPAN_FENCE                  # that a guest waits for, from when it was asked for; the same


cdef struct Span:
    # What happened from when to when (ns): see `watch.pxd`.  Others read it from shared memory.
    uint64_t begin
    uint64_t end
    uint32_t kind               # a SpanKind
    uint32_t track
    uint64_t value


cdef struct Resource:
    uint32_t id
    bint is_stream              # rings, replies and command streams may lie in it
    ShmRegion *region           # one ownership; null: the memory is the caller's
    uint32_t users              # streams that read it now
    uint8_t *data               # of streams
    uint64_t size
    uint64_t populated          # bytes, from the start, that replies find pages for
    Resource *chain


cdef struct Feedback:
    # A buffer that may be for that; the core's feedback lock guards it.
    uint64_t id                 # of the VkBuffer
    uint64_t memory             # of the VkDeviceMemory it is bound to, 0: none
    uint64_t offset             # in that
    uint64_t size
    uint32_t device             # serial
    uint8_t *places             # a PLACE_... for every 4 bytes; null: none so far
    Feedback *chain


cdef struct SetSize:
    uint64_t layout             # host handle of a VkDescriptorSetLayout
    uint64_t size               # what the descriptors of a set cost, see `costs.pxd`
    SetSize *chain


# lost: the device has been lost, and what was waited for may not have been done.
ctypedef void (*retired_fn)(void *data, bint lost) noexcept nogil


cdef struct Deferred:
    uint32_t seqno              # of the ring, from where on the fence can be asked for
    uint32_t ring_idx
    retired_fn retired
    void *data
    Deferred *next


ctypedef int32_t (*submit_fn)(void *queue, uint32_t count, void *batches,
                              uint64_t fence) noexcept nogil
ctypedef int32_t (*create_fence_fn)(void *device, void *info, void *allocator,
                                    uint64_t *fence) noexcept nogil
ctypedef void (*destroy_fence_fn)(void *device, uint64_t fence, void *allocator) noexcept nogil
ctypedef int32_t (*reset_fences_fn)(void *device, uint32_t count,
                                    const uint64_t *fences) noexcept nogil
ctypedef int32_t (*fence_status_fn)(void *device, uint64_t fence) noexcept nogil
ctypedef int32_t (*wait_fences_fn)(void *device, uint32_t count, const uint64_t *fences,
                                   uint32_t all, uint64_t timeout) noexcept nogil


cdef struct Fences:
    void *queue
    void *device
    submit_fn submit
    create_fence_fn create
    destroy_fence_fn destroy
    reset_fences_fn reset
    fence_status_fn status
    wait_fences_fn wait
    uint64_t *spare             # signalled, to be used again
    uint32_t spare_count
    uint32_t capacity
    uint64_t stale[STALE_FENCES]
    uint32_t stale_count
    # A fence for the timeline costs a submission of its own, unless the guest's submission, which
    # mostly has no fence, takes it along.  That is done as long as the timeline is asked for it.
    bint wanted
    uint64_t ahead              # the fence that the last submission took along, 0: none
    uint64_t ahead_calls        # which call of the queue that was
    int32_t result              # of the driver, the last time there was no fence


cdef struct Pending:
    uint64_t fence              # a host VkFence; 0: the queue takes none, and counts as through
    uint64_t calls              # of the queue that it covers
    bint unasked                # by the guest: nobody waits for it
    uint64_t began              # when that was submitted, or asked for (ns); 0: nobody watches
    retired_fn retired
    void *data


cdef struct TimelineCore:
    hesper_monitor monitor      # guards what follows; taken before the queue's, never after it
    Pending *pending            # a ring of `capacity` entries
    uint32_t capacity
    uint32_t first
    uint32_t count
    uint32_t ring_idx           # by which guests name it
    Poll poll                   # of who asks for a fence
    uint64_t busy_ns            # for how long the queue has worked, while somebody watched
    uint64_t last_end           # when it was last seen to be through (ns)
    uint64_t through            # calls of the queue that are known to be done
    uint64_t deadline           # when a stopped timeline gives up; 0 while it lives
    bint waiting                # the waiter waits for the first fence, or retires it
    bint held                   # somebody else looks at the fences: the waiter keeps away
    bint refused                # the queue has taken no fence
    bint told                   # and that has been said
    Fences fences               # the queue's monitor guards them
    QueueState *queue
    Core *context
    TimelineCore *next


cdef struct QueueState:
    hesper_monitor monitor          # one thread at a time submits; guards what follows
    uint64_t calls                  # that it was given so far
    Fences *fences                  # null: no timeline is bound to it
    TimelineCore *timeline          # the same
    bint watched                    # the timeline's waiter knows that it has something to do
    uint64_t handle                 # the driver's
    DeviceState *device
    # What it uses of the GPU's time: `shares.pxd`.  The share's monitor guards the numbers and the
    # list; the fence is the meter's own, but the queue's monitor is held to submit it.
    Fences *meter                   # null: nothing has been measured
    uint64_t meter_fence            # that is in flight; 0: none
    uint64_t meter_covers           # of `meter_given`
    uint64_t meter_given            # submissions
    uint64_t meter_done             # of them
    bint meter_over                 # its device is being destroyed
    QueueState *meter_next


cdef struct Share:
    # Of the GPU's time: `shares.pxd`.
    hesper_monitor monitor          # guards what follows, but for the first two
    uint64_t *page                  # that the supervisor has, too; null: nothing is shared
    int wake                        # a descriptor to write to when the supervisor is to look
    uint64_t busy                   # ns
    uint64_t since                  # ns; 0: nothing is submitted that is not done
    uint32_t inside                 # threads that submit just now
    QueueState *queues              # that were ever given work
    QueueState *current             # that the meter looks at, without the monitor
    QueueState *last                # that it has looked at
    uint32_t forgetting             # threads that wait for it to let go of `current`
    bint asleep                     # the meter waits for work
    bint stopping


cdef struct StandIns:
    # What descriptors get in the place of nothing, where the driver has no nullDescriptor: its
    # handles.  `stand_ins.pxd` says what for.
    uint64_t zeros              # a VkBuffer that is only read; 0: there are none of these
    uint64_t zeros_size
    uint64_t uniform_range      # bytes of it that a uniform buffer may have
    uint64_t sink               # a VkBuffer that may be written to
    uint64_t zero_texels        # VkBufferViews of both
    uint64_t sink_texels
    uint64_t zero_image         # VkImageViews
    uint64_t sink_image


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
    uint32_t nulls                  # where null is allowed: NULL_... of `nulls.pxd`
    StandIns stand_ins
    QueueState *queues[QUEUES]      # null behind the last one
    DeviceState *next


cdef struct Upcalls:
    # Holds what has been decoded against its relations: 0, or -1 with the error noted.  Called by
    # its address, so that it does not become part of the decoder's loop.
    int (*check)(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil
    # What lies above the core, in Python.
    int (*handler)(Stream *s, uint32_t index) noexcept nogil    # 0, or -1 with the error noted
    void (*command_failed)(Stream *s, uint32_t index) noexcept nogil
    void (*dropped)(Stream *s, const hesper_relation *relation) noexcept nogil
    void (*device_lost)(Core *core, DeviceState *device) noexcept nogil
    void (*limit_reached)(Core *core) noexcept nogil
    # What runs the commands of a context with a tape; null without one.  See `taped_loops.pxd`.
    int (*run_span)(Stream *s, const uint8_t *data, uint64_t size) noexcept nogil
    int (*run_ring)(RingCore *ring, uint32_t tail, uint32_t limit) noexcept nogil
    int (*run_stream)(Stream *s, Arena *mark) noexcept nogil


# Looks at an OP_SETS: 0, or -1 with the error noted.
ctypedef int (*sets_fn)(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil


# Looks at an OP_BOUND in whatever form it has: 0, or -1 with the error noted.
ctypedef int (*bound_fn)(Stream *s, const hesper_op *op, const uint8_t *base) noexcept nogil


cdef struct Core:
    # One context, without Python.
    Objects objects
    hesper_monitor monitor          # guards resources, rings; signalled when a user is done
    Resource *resources[ENGINE_RESOURCES]
    uint32_t resource_count
    uint32_t resource_limit
    ShmPool *pool
    RingCore *rings
    DeviceState *devices            # all there ever were
    DeviceState *device_by_serial[DEVICES + 1]  # the same; null for 0
    uint32_t lost_devices
    uint32_t lost_unsettled         # of them
    uint64_t heard[HEARD]           # dead objects that the guest knows to be none; a ring
    uint32_t heard_next
    uint32_t heard_lock
    Feedback *feedback[FEEDBACK_SLOTS]
    uint32_t feedback_lock
    uint32_t feedback_count
    SetSize *set_sizes[SET_SLOTS]
    uint32_t set_sizes_lock
    bint planar                 # there has been a view, or a conversion, of several planes
    Entry *filled_cache             # the VkPipelineCache that was filled last
    uint64_t lookout_ns             # for how long a queue may work before somebody looks at it
    TimelineCore *timelines[TIMELINES]  # by ring_idx; null: bound to no queue
    TimelineCore *all_timelines     # that there ever were: a thread may still look at one
    uint32_t fatal
    uint32_t stopping
    hesper_timer watch_timer        # when ALIVE is set next
    uint64_t watch_ns               # how often it is
    uint64_t watched_until          # somebody watches the queues until then (ns); 0: nobody
    uint32_t tracing                # and wants to know what happened when
    uint32_t span_lock              # guards what follows
    Span *spans                     # null while nobody does
    uint64_t span_count
    uint64_t span_limit
    RingCore *ahead_of              # the ring that the context's own stream has run ahead of
    uint32_t ahead_seqno            # and where that ring has to be
    bint runs_ahead                 # it may do so
    Share share
    Polling polling                 # of its threads
    size_t arena_limit
    Row *rows                       # by command index
    Hot *hot                        # by command number
    Upcalls up
    bound_fn check_bound            # a pointer, to keep it out of the decoder's loop
    sets_fn check_sets              # the same
    void *handlers                  # a `handlers.Handlers`, borrowed: for `up`
    char reason[384]
    uint64_t replies
    uint64_t handler_calls
    Tape *tape                      # null: nobody records


cdef struct Victim:
    # An object that a command destroys, as it was when the command was decoded.
    uint64_t id
    uint64_t handle


cdef struct Piece:
    # Of a run of descriptors: what lies in one binding.
    uint32_t number
    uint32_t element
    uint32_t count
    uint32_t types              # as in SetBinding
    uint32_t flags


cdef struct Split:
    # A write or copy that is to become one for each piece; a copy has two pieces for each.
    Split *next
    const void *whole
    Piece *pieces
    uint64_t count


cdef struct Noted:
    # An object whose facts a relation may want to know: those of the last few are kept.
    const uint64_t *at          # where its handle has been put
    uint32_t facts[FACTS]


cdef struct Stream:
    # Where commands are read from and replies go; one a ring, one for the context itself.
    const uint8_t *cursor
    const uint8_t *end
    const uint8_t *start            # of the current span, for offsets in messages
    const uint8_t *begin            # of the command that `run_whole` runs
    Core *core
    RingCore *ring                  # null for the context's own stream
    Arena arena
    # The command buffer that was recorded into last: streams seldom change it.
    Entry *recorded
    const uint8_t *counted_from     # see `recording.pxd`
    uint64_t counted_commands
    # The command being decoded.
    const hesper_command *command
    uint8_t *parameters
    Entry *first                    # the handle the command is called on
    uint64_t first_id
    Entry *parent                   # the pool of new objects
    uint64_t parent_id
    Extent extents[MEASURED]        # of handles whose size counts: `bounds.pxd`
    Extent *extent_list             # of an array of such handles
    Seen seen_sets[2]               # of what descriptors were written to, and copied from, last
    Seen seen_pipeline
    Split *first_split              # of the command, in the order of the wire
    Split *last_split
    bint nulls                      # it has null handles to be looked at: `nulls.pxd`
    uint64_t attached               # of a VkRenderingInfo: see `attachments.pxd`
    Victim *victims
    uint32_t victim_count
    uint32_t device                 # serial all handles must share
    uint32_t depth
    Noted noted[NOTED]          # a ring
    uint32_t noted_next
    bint nested
    bint wants_reply
    bint limited                # the command has failed for a limit of ours
    bint admitted               # it has waited for its share of the GPU's time
    # Dead objects, see `dead.pxd`.
    bint lenient                # they are let through
    bint dead_first             # the command is called on one
    bint dead_argument          # it is given one
    int32_t dead                # what that failed with
    Poll poll                   # for a ring; of the context's own stream
    # Replies.
    uint8_t *reply
    uint8_t *reply_end
    uint8_t *reply_start
    uint32_t reply_resource
    # What went wrong.
    Error error
    const hesper_op *error_op
    uint64_t error_value
    const hesper_relation *error_relation   # that is broken: by `error_value` and this
    uint64_t error_right
    SetFault error_set
    CodeFault error_code
    uint64_t error_start        # ERROR_BOUND: the first byte or element
    uint64_t error_most         # and how many there are
    uint64_t commands
    uint64_t bytes
    uint32_t stage              # a Stage
    uint32_t number             # of the command it is about
    TapeRunning *tape_running   # where a tape notes the same; null: nowhere so far


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
    int32_t nice                # of its thread, if that gives way to more than others do
    Poll poll                       # of its thread, for the next command
    Poll borrow_poll                # of its thread, for who runs its commands
    Poll virtqueue_poll             # of its thread, for the context's own stream
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


cdef inline DeviceState *device_state(Core *core, const Entry *entry) noexcept nogil:
    """The state of the device that an object is or belongs to; null: none."""
    return core.device_by_serial[entry.device]


cdef inline QueueState *queue_state(Core *core, const Entry *queue) noexcept nogil:
    """The state of a VkQueue; null for what has just become something else."""
    cdef DeviceState *device = device_state(core, queue)
    return device.queues[queue.extra % QUEUES] if device != NULL else NULL


cdef inline int fail(Stream *s, Error error, const hesper_op *op, uint64_t value) noexcept nogil:
    """Note the first error of a command; always -1."""
    if s.error == ERROR_NONE:
        s.error = error
        s.error_op = op
        s.error_value = value
    return -1
