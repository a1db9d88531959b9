"""The object table: guest ids to host handles.

Guests number their objects from 1 upwards and never use a number again.  So the table is an array
of pages of entries, a window that moves along with the ids: a page whose objects are all gone
leaves its place to the one whose ids come PAGES pages later.  Where an object is left in a page
whose place is wanted again, a small hash map takes what does not fit, and so it does for ids that
lie anywhere.

Nothing of this is freed while the table lives: a thread that races with another one that removes
an object reads a dead entry, or one of an object that the same guest has made since.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from hesper_commands cimport HANDLE_VkCommandBuffer

from hesper.kernel.core.ledger cimport (
    ACCOUNT_DECODED, ACCOUNT_OBJECTS, ACCOUNT_RECORDED, Ledger, ledger_give, ledger_leased,
    ledger_take_of)
from hesper.kernel.core.platform cimport (
    hesper_add, hesper_add_ordered, hesper_discard, hesper_exchange_u64, hesper_load_acquire,
    hesper_load_pointer, hesper_load_u64, hesper_map_aligned, hesper_note, hesper_replace,
    hesper_spin_lock, hesper_spin_unlock, hesper_store_pointer, hesper_store_release,
    hesper_store_u64, hesper_unmap)
from hesper.kernel.core.set_layouts cimport (
    Descriptions, description_drop, descriptions_free)
from hesper.kernel.core.tables cimport FACTS, hesper_function


cdef enum:
    PAGE_BITS = 10
    PAGE_ENTRIES = 1 << PAGE_BITS
    PAGES = 16384
    PAGE_BYTES = 1 << 18        # of address space, not less than a Page; pages are aligned to it
    PAGE_COST = 16384           # of one with a single object: few pages of the system
    WARM_PAGES = 8              # pages without objects that keep their memory
    CLOSED = 1 << 31            # in Page.live: nobody can add to it
    SPARSE_SLOTS = 4096
    NO_TYPE = 0
    DEAD = 1 << 16              # in Entry.type: the driver has not made it, see `dead.pxd`
    COMING = 1 << 17            # a thread is about to make it: no object yet


cdef struct Entry:
    uint64_t handle
    hesper_function *table      # functions of the object's device or instance
    uint32_t type               # HANDLE_..., DEAD; COMING; 0: no object
    uint32_t device             # serial of the device it belongs to, 0: none
    # Queues: their index in DeviceState; command buffers: their id; buffers: see `buffers.pxd`;
    # dead objects: what they failed with.  Never an address: by the time it is read, another ring
    # may have made an object of another type here.
    uint64_t extra


cdef struct Kin:
    # What is needed only when objects come and go.
    uint64_t id
    uint64_t parent_id
    uint64_t device_id
    Kin *chain                  # in the hash map, or of those that it has to spare
    Kin *parent
    Kin *first_child
    Kin *next
    Kin *previous
    void *region                # of memory: its ShmRegion; the pool's lock guards it
    uint64_t description        # a reference, which it owns: `set_layouts.pxd`; 0: none
    uint64_t charged            # bytes of the memory limit
    uint64_t recorded           # the same, for what is in a command buffer


cdef struct Extent:
    # How large an object is: `extents.pxd` says in what.
    uint64_t size               # all ones: unknown, or of no matter
    uint64_t texels
    uint32_t facts[FACTS]       # what relations know of it, one more than each; 0: not known


cdef struct Page:
    uint64_t index              # upper bits of its ids; NOWHERE: it has none, or is the hash map's
    uint32_t live               # objects, and threads that are about to add one; CLOSED
    bint is_sparse              # its entries are the hash map's
    Page *spare                 # the next one without objects
    Page *next                  # of all there are
    uint64_t padding[4]
    Entry entries[PAGE_ENTRIES]
    Extent extents[PAGE_ENTRIES]
    Kin kin[PAGE_ENTRIES]


cdef struct Objects:
    Page *pages[PAGES]          # by the lower bits of their index
    uint32_t lock               # guards the pages' coming and going
    Page *newest                # kept though it may be empty
    Page *first_page            # of all there are
    Page *last_page
    Page *warm
    Page *cold
    uint32_t warm_count
    uint32_t page_count
    Kin *sparse[SPARSE_SLOTS]
    Kin *sparse_free
    uint32_t sparse_lock
    uint32_t sparse_count
    uint64_t multiplier         # odd, secret: no guest can choose ids that collide
    uint32_t live
    uint32_t limit
    uint32_t used_count         # pages that have an index
    Ledger *ledger              # null: nothing is charged
    Descriptions descriptions   # of descriptor set layouts


cdef inline uint64_t nowhere() noexcept nogil:
    return <uint64_t>-1


cdef inline Entry *object_find(Objects *objects, uint64_t id) noexcept nogil:
    """The live object with that guest id, or null."""
    cdef uint64_t index = id >> PAGE_BITS
    cdef Page *page = <Page *>hesper_load_pointer(<void **>&objects.pages[index & (PAGES - 1)])
    cdef Entry *entry
    if page != NULL and hesper_load_u64(&page.index) == index:
        entry = &page.entries[id & (PAGE_ENTRIES - 1)]
        if hesper_load_acquire(&entry.type) != NO_TYPE:
            return entry
    return object_find_sparse(objects, id) if hesper_load_acquire(&objects.sparse_count) else NULL


cdef inline Entry *object_find_sparse(Objects *objects, uint64_t id) noexcept nogil:
    cdef Kin *kin
    cdef Entry *entry
    hesper_spin_lock(&objects.sparse_lock)
    kin = objects.sparse[sparse_slot(objects, id)]
    while kin != NULL and kin.id != id:
        kin = kin.chain
    hesper_spin_unlock(&objects.sparse_lock)
    if kin == NULL:
        return NULL
    entry = kin_entry(kin)
    return entry if hesper_load_acquire(&entry.type) != NO_TYPE else NULL


cdef inline uint32_t sparse_slot(Objects *objects, uint64_t id) noexcept nogil:
    return <uint32_t>((id * objects.multiplier) >> 52)


cdef inline Page *page_of(void *at) noexcept nogil:
    """The page that an entry or its kin lies in."""
    return <Page *>(<uint64_t>at & ~<uint64_t>(PAGE_BYTES - 1))


cdef inline Kin *object_kin(Entry *entry) noexcept nogil:
    cdef Page *page = page_of(entry)
    return &page.kin[entry - &page.entries[0]]


cdef inline Extent *object_extent(Entry *entry) noexcept nogil:
    """How large an object is."""
    cdef Page *page
    # The extents follow the entries, each of which is as large as an extent: no division.
    if sizeof(Entry) == sizeof(Extent):
        return <Extent *>(entry + PAGE_ENTRIES)
    page = page_of(entry)
    return &page.extents[entry - &page.entries[0]]


cdef inline Entry *kin_entry(Kin *kin) noexcept nogil:
    cdef Page *page = page_of(kin)
    return &page.entries[kin - &page.kin[0]]


cdef inline Page *page_new(Objects *objects) noexcept nogil:
    """A closed page without objects, or null without memory; the lock is held."""
    cdef Page *page = objects.warm
    if page != NULL:
        objects.warm = page.spare
        objects.warm_count -= 1
        return page
    page = objects.cold
    if page != NULL:
        objects.cold = page.spare
        return page
    page = <Page *>hesper_map_aligned(PAGE_BYTES)
    if page == NULL:
        return NULL
    page.index = nowhere()
    page.live = CLOSED
    if objects.last_page == NULL:
        objects.first_page = page
    else:
        hesper_store_pointer(<void **>&objects.last_page.next, page)
    objects.last_page = page
    hesper_note(&objects.page_count, objects.page_count + 1)
    return page


cdef inline bint page_close(Objects *objects, Page *page) noexcept nogil:
    """Take a page away from its ids, if it has no objects; the lock is held."""
    if page.index == nowhere() or not hesper_replace(&page.live, 0, CLOSED):
        return False
    hesper_store_pointer(<void **>&objects.pages[page.index & (PAGES - 1)], NULL)
    hesper_store_u64(&page.index, nowhere())
    page_give(objects)
    if objects.newest == page:
        hesper_store_pointer(<void **>&objects.newest, NULL)
    if objects.warm_count < WARM_PAGES:
        page.spare = objects.warm
        objects.warm = page
        objects.warm_count += 1
    else:
        # Threads may still read its entries: they find none.
        hesper_discard(page, sizeof(Page) - sizeof(page.entries) - sizeof(page.kin)
                       - sizeof(page.extents), PAGE_BYTES)
        page.spare = objects.cold
        objects.cold = page
    return True


cdef inline bint page_charge(Objects *objects) noexcept nogil:
    """Take what one page more costs, unless it is the only one; the lock is held."""
    # A lock is held, so that nobody can wait for a greater lease: it may be passed a little.
    if objects.used_count and objects.ledger != NULL and not ledger_take_of(
            objects.ledger, ACCOUNT_OBJECTS, PAGE_COST, objects.ledger.limit,
            ledger_leased(objects.ledger, ACCOUNT_DECODED)):
        return False
    objects.used_count += 1
    return True


cdef inline void page_give(Objects *objects) noexcept nogil:
    objects.used_count -= 1
    if objects.used_count and objects.ledger != NULL:
        ledger_give(objects.ledger, ACCOUNT_OBJECTS, PAGE_COST)


cdef inline Page *page_hold(Objects *objects, uint64_t index) noexcept nogil:
    """The page of that index, new or not, as if one object more were in it.

    Null when an object is left in the page that has its place, or memory is short.
    """
    cdef Page **place = &objects.pages[index & (PAGES - 1)]
    cdef Page *previous
    cdef Page *page
    hesper_spin_lock(&objects.lock)
    page = place[0]
    if page != NULL and page.index != index and page_close(objects, page):
        page = NULL
    if page == NULL:
        if page_charge(objects):
            page = page_new(objects)
            if page == NULL:
                page_give(objects)
        if page != NULL:
            hesper_add(&page.live, <uint32_t>(1 - <int64_t>CLOSED))
            hesper_store_u64(&page.index, index)
            hesper_store_pointer(<void **>place, page)
            previous = objects.newest
            hesper_store_pointer(<void **>&objects.newest, page)
            if previous != NULL:
                page_close(objects, previous)
    elif page.index == index:
        hesper_add(&page.live, 1)
    else:
        page = NULL
    hesper_spin_unlock(&objects.lock)
    return page


cdef inline Page *newest_page(Objects *objects) noexcept nogil:
    return <Page *>hesper_load_pointer(<void **>&objects.newest)


cdef inline void page_drop(Objects *objects, Page *page) noexcept nogil:
    """One object less; a page without any goes, unless the next ids will be its."""
    if hesper_add_ordered(&page.live, <uint32_t>-1) == 0 and page != newest_page(objects):
        hesper_spin_lock(&objects.lock)
        page_close(objects, page)
        hesper_spin_unlock(&objects.lock)


cdef inline Entry *object_slot(Objects *objects, uint64_t id) noexcept nogil:
    """The entry for a new object `id`, which its page counts already; null when memory is short."""
    cdef uint64_t index = id >> PAGE_BITS
    cdef Page *page = <Page *>hesper_load_pointer(<void **>&objects.pages[index & (PAGES - 1)])
    if page != NULL and hesper_load_u64(&page.index) == index:
        # It may be about to lose that index.
        if (not hesper_add_ordered(&page.live, 1) & CLOSED
                and hesper_load_u64(&page.index) == index):
            return &page.entries[id & (PAGE_ENTRIES - 1)]
        page_drop(objects, page)
    page = page_hold(objects, index)
    if page != NULL:
        return &page.entries[id & (PAGE_ENTRIES - 1)]
    return sparse_new(objects, id)


cdef inline Entry *sparse_new(Objects *objects, uint64_t id) noexcept nogil:
    """An entry of the hash map; null when memory is short."""
    cdef Kin *kin
    cdef Page *page
    cdef uint32_t i
    hesper_spin_lock(&objects.sparse_lock)
    if objects.sparse_free == NULL:
        hesper_spin_lock(&objects.lock)
        page = page_new(objects)
        hesper_spin_unlock(&objects.lock)
        if page != NULL:
            page.is_sparse = True
            for i in range(PAGE_ENTRIES):
                page.kin[i].chain = objects.sparse_free
                objects.sparse_free = &page.kin[i]
    kin = objects.sparse_free
    if kin != NULL:
        objects.sparse_free = kin.chain
        kin.id = id
        kin.chain = objects.sparse[sparse_slot(objects, id)]
        objects.sparse[sparse_slot(objects, id)] = kin
        hesper_add_ordered(&objects.sparse_count, 1)
    hesper_spin_unlock(&objects.sparse_lock)
    return kin_entry(kin) if kin != NULL else NULL


cdef inline void sparse_drop(Objects *objects, Kin *kin) noexcept nogil:
    """Take an entry off the hash map."""
    cdef Kin **link
    hesper_spin_lock(&objects.sparse_lock)
    link = &objects.sparse[sparse_slot(objects, kin.id)]
    while link[0] != NULL and link[0] != kin:
        link = &link[0].chain
    if link[0] != NULL:
        link[0] = kin.chain
        kin.chain = objects.sparse_free
        objects.sparse_free = kin
        hesper_add_ordered(&objects.sparse_count, <uint32_t>-1)
    hesper_spin_unlock(&objects.sparse_lock)


cdef inline Entry *object_add(
    Objects *objects, uint64_t id, uint32_t type, uint64_t handle, hesper_function *table,
    uint32_t device, uint64_t device_id, uint64_t parent_id, void *region, const Extent *extent,
    uint64_t description,
) noexcept nogil:
    """Make an object; null when a limit is reached, or another thread has made one of that id.

    region: of memory: becomes the object's, with it and not a moment later.
    description: a reference that becomes the object's, or 0.
    """
    cdef Entry *entry
    cdef Kin *kin
    if hesper_add(&objects.live, 1) > objects.limit:
        hesper_add(&objects.live, <uint32_t>-1)
        return NULL
    entry = object_slot(objects, id)
    if entry == NULL:
        hesper_add(&objects.live, <uint32_t>-1)
        return NULL
    if not hesper_replace(&entry.type, NO_TYPE, COMING):
        # Only in a page: a place in the hash map is nobody else's.
        hesper_add(&objects.live, <uint32_t>-1)
        page_drop(objects, page_of(entry))
        return NULL
    kin = object_kin(entry)
    kin.id = id
    kin.region = region
    object_give(objects, kin)   # a thread may have charged it when it was gone
    object_own(objects, kin, description)
    kin.device_id = device_id
    kin.parent_id = parent_id
    kin.parent = NULL
    kin.first_child = NULL
    kin.previous = NULL
    kin.next = NULL
    entry.handle = handle
    entry.table = table
    entry.device = device
    entry.extra = id if type == HANDLE_VkCommandBuffer else 0
    object_extent(entry)[0] = extent[0]
    hesper_store_release(&entry.type, type)
    return entry


cdef inline void object_own(Objects *objects, Kin *kin, uint64_t description) noexcept nogil:
    """Let an object have that reference, and give up the one it has had."""
    cdef uint64_t before
    if kin.description == description:
        return                  # mostly none
    before = hesper_exchange_u64(&kin.description, description)
    if before:
        description_drop(&objects.descriptions, before)


cdef inline void object_give(Objects *objects, Kin *kin) noexcept nogil:
    """Give back what an object was charged for."""
    cdef uint64_t charged = hesper_exchange_u64(&kin.charged, 0)
    cdef uint64_t recorded = hesper_exchange_u64(&kin.recorded, 0)
    if objects.ledger == NULL:
        return
    if charged:
        ledger_give(objects.ledger, ACCOUNT_OBJECTS, charged)
    if recorded:
        ledger_give(objects.ledger, ACCOUNT_RECORDED, recorded)


cdef inline void object_adopt(Entry *parent, Entry *entry) noexcept nogil:
    """Hang a new object under its pool, so that it goes when the pool goes."""
    cdef Kin *pool = object_kin(parent)
    cdef Kin *kin = object_kin(entry)
    kin.parent = pool
    kin.next = pool.first_child
    if kin.next != NULL:
        kin.next.previous = kin
    pool.first_child = kin


cdef inline void object_clear(Objects *objects, Entry *entry) noexcept nogil:
    """Forget the children of an object."""
    cdef Kin *kin = object_kin(entry)
    cdef Kin *child = kin.first_child
    cdef Kin *next
    # Threads of a guest that breaks Vulkan's threading rules can tie the list into a ring; no
    # list has more members than there are objects.
    cdef uint32_t left = objects.limit
    kin.first_child = NULL
    while child != NULL and left:
        next = child.next
        child.parent = NULL
        object_forget(objects, child)
        child = next
        left -= 1


cdef inline bint object_remove(Objects *objects, Entry *entry) noexcept nogil:
    """Forget an object and its children; False when another thread has."""
    cdef Kin *kin = object_kin(entry)
    object_clear(objects, entry)
    if kin.previous != NULL:
        kin.previous.next = kin.next
    elif kin.parent != NULL:
        kin.parent.first_child = kin.next
    if kin.next != NULL:
        kin.next.previous = kin.previous
    return object_forget(objects, kin)


cdef inline bint object_forget(Objects *objects, Kin *kin) noexcept nogil:
    cdef Entry *entry = kin_entry(kin)
    cdef uint32_t type = hesper_load_acquire(&entry.type)
    if type == NO_TYPE or type & COMING:
        return False
    # What a thread charges it after this is given back when something is made in its place.
    object_give(objects, kin)
    object_own(objects, kin, 0)
    if not hesper_replace(&entry.type, type, NO_TYPE):
        return False
    hesper_add(&objects.live, <uint32_t>-1)
    kin.parent = NULL
    kin.previous = NULL
    kin.next = NULL
    if page_of(kin).is_sparse:
        sparse_drop(objects, kin)
    else:
        page_drop(objects, page_of(kin))
    return True


cdef struct Walk:
    # Where a look at all objects is: zeroed before the first one.
    Page *page
    uint32_t place


cdef inline Entry *object_next(Objects *objects, Walk *walk) noexcept nogil:
    """The next live object, or null after the last one."""
    cdef Entry *entry
    if walk.page == NULL:
        walk.page = <Page *>hesper_load_pointer(<void **>&objects.first_page)
    while walk.page != NULL:
        while walk.place < PAGE_ENTRIES:
            entry = &walk.page.entries[walk.place]
            walk.place += 1
            if hesper_load_acquire(&entry.type) != NO_TYPE:
                return entry
        walk.place = 0
        walk.page = next_page(walk.page)
    return NULL


cdef inline Page *next_page(Page *page) noexcept nogil:
    """The next page that may have objects."""
    page = <Page *>hesper_load_pointer(<void **>&page.next)
    while page != NULL and hesper_load_acquire(&page.live) == CLOSED and not page.is_sparse:
        page = <Page *>hesper_load_pointer(<void **>&page.next)
    return page


cdef inline Entry *object_with(Objects *objects, uint32_t type, uint64_t handle,
                               uint32_t device) noexcept nogil:
    """The live object of a type with that host handle, of a device (0: any); a search, or null."""
    cdef Walk walk
    cdef Entry *entry
    if handle == 0:
        return NULL
    memset(&walk, 0, sizeof(walk))
    entry = object_next(objects, &walk)
    while entry != NULL:
        if (entry.handle == handle and entry.type == type
                and (device == 0 or entry.device == device or entry.device == 0)):
            return entry
        entry = object_next(objects, &walk)
    return NULL


cdef inline void objects_free(Objects *objects) noexcept nogil:
    cdef Page *page = objects.first_page
    cdef Page *next
    while page != NULL:
        next = page.next
        hesper_unmap(page, PAGE_BYTES)
        page = next
    descriptions_free(&objects.descriptions)
