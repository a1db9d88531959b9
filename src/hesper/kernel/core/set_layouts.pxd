"""What descriptor set layouts have: bindings, which outlive the layout as long as sets have them.

Whoever has a description (a layout, its sets, the pipeline layouts made of it; a render pass, and
command buffers that record it) has a reference to
it, a number that never comes again.  It is looked up, read and given up under one lock, so that a
thread that races with another one that destroys the last owner finds none, not another one.  A set
with dynamic descriptors has a description of its own besides.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from hesper.kernel.core.ledger cimport ACCOUNT_OBJECTS, Ledger, ledger_give, ledger_take
from hesper.kernel.core.platform cimport hesper_spin_lock, hesper_spin_unlock


cdef enum:
    PLACE_BITS = 22             # of a reference: its place; above it, which one that has been there
    RUN_BITS = 10
    RUN = 1 << RUN_BITS         # places that are made at a time
    RUNS = 1 << (PLACE_BITS - RUN_BITS)
    SEEN_WORDS = 48             # of 16 bindings


cdef enum Described:
    OF_LAYOUT = 0
    OF_PIPELINE
    OF_SET
    OF_PASS


cdef enum:
    # In SetBinding.flags.
    BINDING_VARIABLE = 1        # as many as the set was given
    BINDING_MUTABLE = 2
    BINDING_DYNAMIC = 4         # each takes a dynamic offset
    BINDING_PLANES = 8          # the lowest bit of how many planes more than one it puts together


cdef struct SetBinding:
    uint32_t number
    uint32_t types              # a bit for each type that it takes: `type_bit`
    uint32_t count              # of descriptors, of bytes in an inline uniform block
    uint32_t stages
    uint32_t flags
    uint32_t offsets            # dynamic ones that the bindings before it take


cdef struct Description:
    # Of a set layout, with `count` of SetBinding behind it, by rising numbers; of a pipeline
    # layout, with as many references to those of its set layouts (0: there is none); of a set,
    # with a reference to its layout's and then what is kept of each dynamic descriptor; or of a
    # render pass: `pass_colors.pxd`.
    uint32_t count
    uint32_t of                 # a Described
    uint32_t references         # that stand first behind it, and are given up with it
    uint32_t flags              # VkDescriptorSetLayoutCreateFlags
    uint32_t dynamic            # offsets that a set takes
    uint64_t variable           # the largest count that a set may be given; all ones: none
    uint64_t cost


cdef struct Place:
    uint64_t reference          # 0: nobody has it
    Description *description
    uint32_t owners
    uint32_t next_free          # one more than its index
    uint64_t turn


cdef struct Descriptions:
    Place *runs[RUNS]
    uint32_t lock
    uint32_t count              # of places that there are
    uint32_t free               # one more than the index of the first that nobody has
    Ledger *ledger              # null: nothing is charged


cdef struct Seen:
    # A copy of a small description, for the next command that names it.
    uint64_t reference
    uint32_t count
    uint64_t words[SEEN_WORDS]


cdef inline const SetBinding *seen_bindings(const Seen *seen) noexcept nogil:
    return <const SetBinding *>&seen.words[0]


cdef inline SetBinding *set_bindings(Description *description) noexcept nogil:
    return <SetBinding *>&description[1]


cdef inline uint64_t *pipeline_sets(Description *description) noexcept nogil:
    return <uint64_t *>&description[1]


cdef inline uint64_t *set_reaches(Description *description) noexcept nogil:
    """Of each dynamic descriptor, the largest dynamic offset that it can take, inverted.

    So those that were never written, or are null, have 0: any offset will do.
    """
    return <uint64_t *>&description[1] + 1


cdef inline Place *place_of(Descriptions *all, uint64_t reference) noexcept nogil:
    """The place of a reference, or null when it is nobody's any more; the lock is held."""
    cdef uint32_t index = reference & ((1 << PLACE_BITS) - 1)
    cdef Place *place
    if reference == 0 or index >= all.count:
        return NULL
    place = &all.runs[index >> RUN_BITS][index & (RUN - 1)]
    return place if place.reference == reference else NULL


cdef inline Description *description_of(Descriptions *all, uint64_t reference,
                                        Described of) noexcept nogil:
    """What a reference is to, or null when that is gone, or of another kind; the lock is held.

    Where an object has become one of another type meanwhile, so has its reference.
    """
    cdef Place *place = place_of(all, reference)
    if place == NULL or place.description.of != <uint32_t>of:
        return NULL
    return place.description


cdef inline Description *description_new(Descriptions *all, uint64_t count,
                                         uint64_t each) noexcept nogil:
    """A zeroed one with room for `count` elements, which is charged; or null without memory."""
    cdef uint64_t size = sizeof(Description) + count * each
    cdef Description *made
    if all.ledger != NULL and not ledger_take(all.ledger, ACCOUNT_OBJECTS, size + sizeof(Place)):
        return NULL
    made = <Description *>calloc(1, size)
    if made == NULL:
        if all.ledger != NULL:
            ledger_give(all.ledger, ACCOUNT_OBJECTS, size + sizeof(Place))
        return NULL
    made.cost = size + sizeof(Place)
    made.count = <uint32_t>count
    return made


cdef inline void description_free(Descriptions *all, Description *description) noexcept nogil:
    if all.ledger != NULL:
        ledger_give(all.ledger, ACCOUNT_OBJECTS, description.cost)
    free(description)


cdef inline uint64_t description_add(Descriptions *all, Description *made) noexcept nogil:
    """The first reference to it; 0, and it is gone, when there are too many."""
    cdef uint64_t reference = 0
    cdef uint32_t index
    cdef Place *place
    hesper_spin_lock(&all.lock)
    if all.free == 0 and all.count < <uint32_t>RUN * RUNS:
        place = <Place *>calloc(RUN, sizeof(Place))
        if place != NULL:
            all.runs[all.count >> RUN_BITS] = place
            for index in range(RUN):
                place[index].next_free = all.free
                all.free = all.count + index + 1
            all.count += RUN
    if all.free:
        index = all.free - 1
        place = &all.runs[index >> RUN_BITS][index & (RUN - 1)]
        all.free = place.next_free
        place.turn += 1
        reference = place.turn << PLACE_BITS | index
        place.reference = reference
        place.description = made
        place.owners = 1
    hesper_spin_unlock(&all.lock)
    if reference == 0:
        description_free(all, made)
    return reference


cdef inline Description *place_leave(Descriptions *all, uint64_t reference) noexcept nogil:
    """One owner less; what nobody has now, to be freed.  The lock is held."""
    cdef Place *place = place_of(all, reference)
    if place == NULL:
        return NULL
    place.owners -= 1
    if place.owners:
        return NULL
    place.reference = 0
    place.next_free = all.free
    all.free = <uint32_t>(reference & ((1 << PLACE_BITS) - 1)) + 1
    return place.description


cdef inline bint description_hold(Descriptions *all, uint64_t reference) noexcept nogil:
    """One owner more; False when there is none any more.  The lock is held."""
    cdef Place *place = place_of(all, reference)
    if place == NULL or place.owners == <uint32_t>-1:
        return False
    place.owners += 1
    return True


cdef inline void description_drop(Descriptions *all, uint64_t reference) noexcept nogil:
    """Give up a reference, and with the last one what it is to."""
    cdef Description *left
    cdef Description *below
    cdef uint32_t i
    hesper_spin_lock(&all.lock)
    left = place_leave(all, reference)
    hesper_spin_unlock(&all.lock)
    if left == NULL:
        return
    for i in range(left.references):
        hesper_spin_lock(&all.lock)
        below = place_leave(all, pipeline_sets(left)[i])
        hesper_spin_unlock(&all.lock)
        if below != NULL:
            description_free(all, below)
    description_free(all, left)


cdef inline void descriptions_free(Descriptions *all) noexcept nogil:
    """Free everything; nobody uses any of it."""
    cdef uint32_t i
    cdef uint32_t run
    for run in range(all.count >> RUN_BITS):
        for i in range(RUN):
            if all.runs[run][i].reference:
                free(all.runs[run][i].description)
        free(all.runs[run])


cdef inline bint see(Descriptions *all, uint64_t reference, Described of,
                     Seen *seen) noexcept nogil:
    """Copy a layout's description, unless that is done, or it is large; False: it is not there."""
    cdef Description *description
    cdef uint64_t size
    if seen.reference == reference:
        return True
    hesper_spin_lock(&all.lock)
    description = description_of(all, reference, of)
    if description != NULL:
        size = description.count * (sizeof(SetBinding) if of == OF_LAYOUT else sizeof(uint64_t))
        if size <= sizeof(seen.words):
            seen.reference = reference
            seen.count = description.count
            memcpy(seen.words, &description[1], size)
    hesper_spin_unlock(&all.lock)
    return description != NULL and seen.reference == reference


cdef inline uint32_t find_binding(const SetBinding *bindings, uint32_t count,
                                  uint32_t number) noexcept nogil:
    """Index of the binding of that number, or of the first above it."""
    cdef uint32_t low = 0
    cdef uint32_t high = count
    cdef uint32_t middle
    # Mostly they are numbered from 0 on.
    if number < count and bindings[number].number == number:
        return number
    while low < high:
        middle = (low + high) >> 1
        if bindings[middle].number < number:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline bint alike(Descriptions *all, uint64_t one, uint64_t other) noexcept nogil:
    """Whether the descriptors of two set layouts lie at the same places."""
    cdef Description *a
    cdef Description *b
    cdef const SetBinding *x
    cdef const SetBinding *y
    cdef uint32_t i
    cdef bint same
    hesper_spin_lock(&all.lock)
    a = description_of(all, one, OF_LAYOUT)
    b = description_of(all, other, OF_LAYOUT)
    same = a != NULL and b != NULL and a.count == b.count
    for i in range(a.count if same else 0):
        x = &set_bindings(a)[i]
        y = &set_bindings(b)[i]
        if (x.number != y.number or x.count != y.count or x.flags != y.flags
                or (x.types != y.types and x.count)):
            same = False
            break
    hesper_spin_unlock(&all.lock)
    return same
