"""What a number in one struct must be to a number in another one, over the tables of the registry.

Everything looked at is a copy of ours: a relation is checked when all it speaks of is decoded.
What `protocol/relations.py` says of relations, this does; the two are tested against each other.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from hesper_commands cimport VkPhysicalDeviceLimits

from hesper.kernel.core.arena cimport arena_take_zeroed
from hesper.kernel.core.platform cimport hesper_popcount
from hesper.kernel.core.state cimport (
    ERROR_MEMORY, ERROR_RELATION, ERROR_TWICE, NOTED, Noted, Stream, fail)
from hesper.kernel.core.structs cimport chain_find
from hesper.kernel.core.tables cimport *
from hesper.kernel.core.texels cimport aspects_end


cdef enum:
    # What `each_place` does with every place that a path leads to.
    DO_CHECK = 0
    DO_MATCH                    # look for one that meets a condition
    DO_FIND                     # the first one
    DO_ADD                      # all of them


cdef enum:
    # Places in `DEVICE_NUMBERS` of `protocol/relations.py`.
    NUMBER_FAMILIES = 0
    NUMBER_UPDATE_AFTER_BIND_DYNAMIC = 4
    NUMBER_BUFFER_MEBIBYTES = 5
    NUMBER_COPIES_DEPTH = 8     # 1: it does not


cdef enum:
    AMONG = 2                   # in `inner_step`: see protocol/compiler/tables.py
    MEANT = 3


cdef struct Places:
    # A walk along a path, and what is looked for.
    const hesper_relation *relation
    const hesper_condition *condition
    uint64_t right
    uint64_t number             # of the last place; of all, for DO_ADD
    const uint8_t *at           # where it stands
    Stream *stream
    uint8_t *owner              # the struct that the relation belongs to
    uint32_t work               # DO_...
    bint known                  # `right` is
    bint twice                  # a struct stands twice in a chain


cdef inline uint64_t number_at(const uint8_t *at, uint32_t width) noexcept nogil:
    if width == 4:
        return (<const uint32_t *>at)[0]
    if width == 8:
        return (<const uint64_t *>at)[0]
    return at[0] if width == 1 else (<const uint16_t *>at)[0]


cdef inline void put_number(uint8_t *at, uint32_t width, uint64_t number) noexcept nogil:
    memcpy(at, &number, width)


cdef inline uint64_t plus(uint64_t a, uint64_t b) noexcept nogil:
    """The sum, or the largest number."""
    return a + b if a + b >= a else <uint64_t>-1


cdef inline uint64_t times(uint64_t a, uint64_t b) noexcept nogil:
    """The product, or the largest number."""
    if (a | b) >> 32 and a and b > <uint64_t>-1 // a:
        return <uint64_t>-1
    return a * b


cdef inline bint is_among(uint32_t first, uint32_t count, uint64_t number) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if hesper_values[first + i] == number:
            return True
    return False


cdef inline bint terminal(Stream *s, const hesper_step *step, const uint8_t *base,
                          uint64_t *number) noexcept nogil:
    """The number that a path ends with; False where it is not known."""
    cdef uint64_t other
    if step.code == STEP_GIVEN:
        number[0] = (<void *const *>(base + step.offset))[0] != NULL
        return True
    if step.code == STEP_FACT:
        return find_fact(s, <const uint64_t *>(base + step.offset), step.width, number)
    number[0] = number_at(base + step.offset, step.width)
    if step.other_width:
        other = number_at(base + step.other, step.other_width & ~REST)
        if step.other_width & REST and other == <uint32_t>-1:
            other = 1
        number[0] = plus(number[0], other)
    return True


cdef inline bint find_fact(Stream *s, const uint64_t *at, uint32_t slot,
                           uint64_t *number) noexcept nogil:
    """A fact of the object whose handle stands at `at`; False: it is null, or not known."""
    cdef const Noted *noted
    cdef uint32_t i
    if at[0] == 0:
        return False
    for i in range(NOTED):
        # The newest first: memory is used again.
        noted = &s.noted[(s.noted_next - 1 - i) % NOTED]
        if noted.at == at:
            number[0] = <uint64_t>noted.facts[slot] - 1
            return noted.facts[slot] != 0
    return False


cdef inline bint holds(const hesper_relation *r, uint64_t left, uint64_t right) noexcept nogil:
    cdef bint good
    if r.comparison == MUST_NOT_EXCEED:
        good = left <= right
    elif r.comparison == MUST_EQUAL:
        good = left == right
    elif r.comparison == MUST_BE_BELOW:
        good = left < right
    elif r.comparison == MUST_REACH:
        good = left >= right
    else:
        good = r.comparison == MUST_BE_GIVEN and left
    return good or is_among(r.values, r.value_count, left)


cdef inline bint at_place(Places *p, const hesper_step *step, uint8_t *base) noexcept nogil:
    """Do at the end of a path what is to be done; True: that is all."""
    cdef uint64_t number
    if not terminal(p.stream, step, base, &number):
        return False
    if p.work == DO_ADD:
        p.number = plus(p.number, number)
        return False
    p.number = number
    p.at = base + step.offset
    if p.work == DO_FIND:
        return True
    if p.work == DO_CHECK:
        return breaks(p, step, base)
    return meets(p.condition, number)


cdef inline bint meets(const hesper_condition *c, uint64_t number) noexcept nogil:
    if c.kind == CONDITION_GIVEN:
        return number != 0
    if c.kind == CONDITION_HAS:
        return c.mask & number != 0
    if number < 64:
        return c.mask >> number & 1
    return is_among(c.values, c.value_count, number)


cdef inline bint breaks(Places *p, const hesper_step *step, uint8_t *base) noexcept nogil:
    """Whether a place breaks the relation, and it cannot be mended there."""
    cdef const hesper_relation *r = p.relation
    # What it is compared with may depend on what stands beside it; mostly that is known already.
    if not p.known and not product(p.stream, r.right, r.right_count, p.owner, base, &p.right,
                                   &p.twice):
        return False
    if holds(r, p.number, p.right):
        return False
    if r.remedy != REMEDY_SET and r.remedy != REMEDY_CLEAR:
        return True
    put_number(base + step.offset, step.width, p.right if r.remedy == REMEDY_SET else 0)
    if r.beside:
        (<void **>(base + r.beside))[0] = NULL
    return False


cdef inline uint32_t elements(const hesper_step *step, const uint8_t *base) noexcept nogil:
    """How many elements the array has that a step goes through."""
    return length_at(&hesper_lengths[step.length], base + step.other)


cdef inline uint32_t length_at(const hesper_length *rule, const uint8_t *base) noexcept nogil:
    """An array's length: it has been decoded, so that it is below 2^32."""
    cdef const uint8_t *at = base + rule.first
    cdef uint64_t count
    if rule.mode == LENGTH_CONSTANT:
        return rule.constant
    if rule.mode != LENGTH_FIELD:
        at = (<const uint8_t *const *>at)[0]
        if at == NULL:
            return 0
        if rule.mode == LENGTH_POINTER_FIELD:
            at += rule.second
    count = number_at(at, rule.width)
    if rule.divide != 1:
        count = (count + rule.add) // rule.divide
    return <uint32_t>count


cdef inline uint8_t *step_to(const hesper_step *step, uint8_t *base) noexcept nogil:
    """Where a step leads from `base`, or null."""
    if step.code == STEP_CHAIN:
        return <uint8_t *>chain_find(base + step.offset, step.size)
    if step.code == STEP_FIXED:
        return base + step.offset
    return (<uint8_t **>(base + step.offset))[0]


cdef inline bint each_place(Places *p, const hesper_step *step, uint8_t *base) noexcept nogil:
    """Go along a path from `base`; True as soon as a place has ended it."""
    cdef uint32_t count
    cdef uint32_t i
    while step.code > STEP_GIVEN:
        count = elements(step, base) if step.code >= STEP_EACH else 1
        base = step_to(step, base)
        if base == NULL:
            return False
        if step.code == STEP_CHAIN and chain_find(base, step.size) != NULL:
            p.twice = True
        if step.code >= STEP_EACH:
            for i in range(count):
                if each_place(p, step + 1, base + <uint64_t>i * step.size):
                    return True
            return False
        step += 1
    return at_place(p, step, base)


cdef inline bint conditions_met(Stream *s, const hesper_relation *r, uint8_t *base,
                                bint *twice) noexcept nogil:
    cdef Places p
    cdef const hesper_step *step
    cdef uint32_t i
    p.work = DO_MATCH
    p.stream = s
    p.twice = False
    for i in range(r.condition_count):
        p.condition = &hesper_conditions[r.conditions + i]
        step = &hesper_steps[p.condition.step]
        if each_place(&p, step, base) == p.condition.unless:
            return False
    twice[0] |= p.twice
    return True


cdef inline bint product(Stream *s, uint32_t first, uint32_t count, uint8_t *base,
                         uint8_t *beside, uint64_t *right, bint *twice) noexcept nogil:
    """What LEFT, which stands in `beside`, is compared with; False: something is not there."""
    cdef Places p
    cdef const hesper_term *term
    cdef const uint8_t *limits
    cdef uint32_t i
    right[0] = 1
    p.work = DO_FIND
    p.stream = s
    p.twice = False
    for i in range(count):
        term = &hesper_terms[first + i]
        if term.kind == TERM_VALUE:
            p.number = term.value
        elif term.kind == TERM_LIMIT:
            limits = limits_of(s)
            p.number = number_at(limits + term.value, term.width) if limits != NULL else 0
            if p.number == 0:
                return False
        elif term.kind == TERM_AT:
            p.number = 0
            each_at(&p, &hesper_steps[term.step], base, beside)
        elif term.kind == TERM_LAST:
            p.number = last_with(s, &hesper_steps[term.step], base, term.value)
        elif not each_place(&p, &hesper_steps[term.step], base):
            return False
        elif term.kind == TERM_BITS:
            p.number = hesper_popcount(p.number)
        elif term.kind == TERM_LEVELS:
            p.number = levels(<const uint32_t *>p.at)
        elif term.kind == TERM_ASPECTS:
            p.number = aspects_end(<uint32_t>p.number)
        right[0] = times(right[0], p.number)
    twice[0] |= p.twice
    return True


cdef inline void each_at(Places *p, const hesper_step *step, uint8_t *base,
                         uint8_t *beside) noexcept nogil:
    """Go along a path from the element that a number in `beside` names, if there is one."""
    cdef uint64_t index = number_at(beside + step.other, step.width)
    cdef uint8_t *array = (<uint8_t **>(base + step.offset))[0]
    if array != NULL and index < length_at(&hesper_lengths[step.length], base):
        each_place(p, step + 1, array + index * step.size)


cdef inline uint64_t last_with(Stream *s, const hesper_step *step, uint8_t *base,
                               uint64_t value) noexcept nogil:
    """One more than the index of the last element in which a number has that value, or 0."""
    cdef uint64_t number
    cdef uint64_t found = 0
    cdef uint32_t count
    cdef uint32_t i
    while step.code < STEP_EACH:
        base = step_to(step, base)
        if base == NULL:
            return 0
        step += 1
    count = elements(step, base)
    base = step_to(step, base)
    for i in range(count if base != NULL else 0):
        if (terminal(s, step + 1, base + <uint64_t>i * step.size, &number)
                and number == value):
            found = i + 1
    return found


cdef inline void make_facts(Stream *s, uint32_t *facts) noexcept nogil:
    """What is remembered of what the current command has made: one more than each number."""
    cdef const hesper_fact *fact = &hesper_facts[s.command.facts]
    cdef uint64_t number
    cdef bint twice = False
    cdef uint32_t i
    for i in range(FACTS):
        facts[i] = 0
        if i < s.command.fact_count and product(s, fact[i].terms, fact[i].term_count,
                                                s.parameters, s.parameters, &number, &twice):
            facts[i] = <uint32_t>number + 1 if number < <uint32_t>-1 else <uint32_t>-1


cdef inline uint64_t levels(const uint32_t *extent) noexcept nogil:
    """How many mip levels an image of a VkExtent3D has at most."""
    cdef uint32_t largest = extent[0] | extent[1] | extent[2]
    cdef uint64_t found = 0
    while largest:
        largest >>= 1
        found += 1
    return found


cdef inline const uint8_t *limits_of(Stream *s) noexcept nogil:
    """VkPhysicalDeviceLimits of the device that the command is about; null if it is not known."""
    if s.first == NULL or s.first.table == NULL:
        return NULL
    return <const uint8_t *>s.first.table[hesper_command_count]


cdef inline uint32_t device_number(Stream *s, uint32_t place) noexcept nogil:
    """What is known of the device besides its limits; 0: nothing."""
    cdef const uint8_t *limits = limits_of(s)
    if limits == NULL:
        return 0
    return (<const uint32_t *>(limits + sizeof(VkPhysicalDeviceLimits)))[place]


cdef inline uint8_t *holder_of(const hesper_relation *r, uint8_t *base) noexcept nogil:
    """What has the number, or the array, that a remedy changes; null where that is not there."""
    cdef const hesper_step *step = &hesper_steps[r.left]
    while step.code > STEP_GIVEN and step.code < STEP_EACH:
        base = step_to(step, base)
        if base == NULL:
            return NULL
        step += 1
    return base


cdef inline int pad(Stream *s, const hesper_op *op, const hesper_relation *r, uint8_t *base,
                    uint64_t left, uint64_t right) noexcept nogil:
    """Lengthen an array with zeros: from `left` elements to `right`."""
    cdef uint8_t *holder = holder_of(r, base)
    cdef const hesper_step *step = &hesper_steps[r.left]
    cdef void **link
    cdef void *longer
    while step.code > STEP_GIVEN:
        step += 1
    if holder == NULL:
        return 0
    link = <void **>(holder + r.beside)
    # Where there may be null though it is counted, null is what is meant.
    if link[0] == NULL and left:
        return 0
    if right >> 32:
        return fail(s, ERROR_MEMORY, op, right)
    longer = arena_take_zeroed(&s.arena, right * r.beside_size)
    if longer == NULL:
        return fail(s, ERROR_MEMORY, op, right)
    if left:
        memcpy(longer, link[0], left * r.beside_size)
    link[0] = longer
    put_number(holder + step.offset, step.width, right)
    return 0


cdef inline void drop(Stream *s, const hesper_relation *r, uint8_t *base,
                      uint64_t right) noexcept nogil:
    """Take the elements out of an array that break a relation."""
    cdef uint8_t *holder = holder_of(r, base)
    cdef const hesper_step *step = &hesper_steps[r.left]
    cdef uint8_t *array
    cdef uint64_t number
    cdef uint32_t count
    cdef uint32_t kept = 0
    cdef uint32_t i
    while step.code < STEP_EACH:
        step += 1
    if holder == NULL:
        return
    array = step_to(step, holder)
    count = elements(step, holder)
    for i in range(count if array != NULL else 0):
        if (not terminal(s, step + 1, array + <uint64_t>i * step.size, &number)
                or holds(r, number, right)):
            memmove(array + <uint64_t>kept * step.size, array + <uint64_t>i * step.size, step.size)
            kept += 1
    put_number(holder + r.beside, r.beside_size, kept)
    if kept == 0:
        (<void **>(holder + step.offset))[0] = NULL


cdef inline int check_relation(Stream *s, const hesper_op *op, const hesper_relation *r,
                               uint8_t *base) noexcept nogil:
    cdef Places p
    cdef bint broken
    p.twice = False
    if r.condition_count and not conditions_met(s, r, base, &p.twice):
        return 0
    p.stream = s
    p.owner = base
    p.relation = r
    p.number = 0
    p.known = not r.right_count or hesper_terms[r.right].kind != TERM_AT
    if p.known and not product(s, r.right, r.right_count, base, base, &p.right, &p.twice):
        return 0
    p.work = DO_ADD if r.total else DO_CHECK
    broken = each_place(&p, &hesper_steps[r.left], base)
    if p.twice:
        return fail(s, ERROR_TWICE, op, 0)
    if r.total:
        broken = not holds(r, p.number, p.right)
    if not broken:
        return 0
    if r.remedy == REMEDY_PAD:
        return pad(s, op, r, base, p.number, p.right)
    if r.remedy == REMEDY_DROP:
        drop(s, r, base, p.right)
        s.core.up.dropped(s, r)
        return 0
    s.error_relation = r
    s.error_right = p.right
    return fail(s, ERROR_RELATION, op, p.number)


cdef inline bint is_within(Stream *s, const hesper_op *op, const uint8_t *base) noexcept nogil:
    """OP_CHECK_LIMIT, for the common relations: a number, or a sum, that must not exceed a limit;
    a number that must be one of those in a mask; relations that another number rules out.

    False: `check_relations` looks once more, and knows of larger numbers, too.
    """
    cdef const uint8_t *limits
    cdef uint64_t left = (<const uint32_t *>(base + op.offset))[0]
    if op.inner_step >= AMONG:
        # They differ in the lowest bit.
        if left >= 16:
            return op.inner_step == MEANT
        return (op.inner >> left ^ op.inner_step) & 1
    limits = limits_of(s)
    if op.inner_step:
        left += (<const uint32_t *>(base + op.inner_from))[0]
    return limits == NULL or left <= (<const uint32_t *>(limits + op.size))[0]


cdef inline bint is_meant(const hesper_relation *r, const uint8_t *base) noexcept nogil:
    """Whether the first condition may be met: a quick look, for structs with many relations."""
    cdef uint32_t number
    if not r.quick:
        return True
    number = (<const uint32_t *>(base + r.when))[0]
    return number >= 64 or r.mask >> number & 1


cdef inline bint is_local_good(Stream *s, const hesper_relation *r,
                               const uint8_t *base) noexcept nogil:
    """Whether a relation that looks at nothing but numbers of one struct holds: the short way."""
    cdef const hesper_condition *c
    cdef uint64_t number
    cdef uint32_t i
    for i in range(r.condition_count):
        c = &hesper_conditions[r.conditions + i]
        if (terminal(s, &hesper_steps[c.step], base, &number)
                and meets(c, number) == c.unless):
            return True
    return terminal(s, &hesper_steps[r.left], base, &number) and holds(r, number, 0)


cdef inline int check_relations(Stream *s, const hesper_op *op, uint8_t *base) noexcept nogil:
    """Hold the struct or the parameters at `base` against the relations of an OP_CHECK..."""
    cdef const hesper_relation *r
    cdef uint32_t i
    for i in range(op.length):
        r = &hesper_relations[op.ref + i]
        if not is_meant(r, base) or (r.local and is_local_good(s, r, base)):
            continue
        if check_relation(s, op, r, base):
            return -1
    return 0
