# The object table: guest ids to host handles.
#
# Guests number their objects from 1 upwards, so the table is an array in pages, indexed by id; a
# small hash map takes the ids that are too large for it.  Entries are never freed while the table
# lives: a thread that races with another one that removes an object reads a dead entry, never
# freed memory.

cdef enum:
    PAGE_BITS = 10
    PAGE_ENTRIES = 1 << PAGE_BITS
    PAGES = 16384
    DENSE_IDS = PAGE_ENTRIES * PAGES
    SPARSE_SLOTS = 4096
    NO_TYPE = 0


cdef struct Entry:
    uint64_t handle
    hesper_function *table      # functions of the object's device or instance
    uint32_t type               # handle index + 1; 0: no object
    uint32_t device             # serial of the device it belongs to, 0: none
    void *extra                 # queues: QueueState; devices: DeviceState


cdef struct Kin:
    # What is needed only when objects come and go.
    uint64_t id
    uint64_t parent_id
    uint64_t device_id
    Entry *entry
    Kin *parent
    Kin *first_child
    Kin *next
    Kin *previous


cdef struct Page:
    Entry entries[PAGE_ENTRIES]
    Kin kin[PAGE_ENTRIES]


cdef struct SparseEntry:
    Entry entry
    Kin kin
    SparseEntry *chain
    SparseEntry *free


cdef struct Objects:
    Page *pages[PAGES]
    SparseEntry *sparse[SPARSE_SLOTS]
    SparseEntry *sparse_free
    uint32_t sparse_lock
    uint32_t live
    uint32_t limit
    uint64_t highest


cdef inline Entry *object_find(Objects *objects, uint64_t id) noexcept nogil:
    """The live object with that guest id, or null."""
    cdef Page *page
    cdef Entry *entry
    if id < DENSE_IDS:
        page = <Page *>hesper_load_pointer(<void **>&objects.pages[id >> PAGE_BITS])
        if page == NULL:
            return NULL
        entry = &page.entries[id & (PAGE_ENTRIES - 1)]
        return entry if hesper_load_acquire(&entry.type) != NO_TYPE else NULL
    return object_find_sparse(objects, id)


cdef Entry *object_find_sparse(Objects *objects, uint64_t id) noexcept nogil:
    cdef SparseEntry *node
    hesper_spin_lock(&objects.sparse_lock)
    node = objects.sparse[sparse_slot(id)]
    while node != NULL and node.kin.id != id:
        node = node.chain
    hesper_spin_unlock(&objects.sparse_lock)
    return &node.entry if node != NULL and node.entry.type != NO_TYPE else NULL


cdef inline uint32_t sparse_slot(uint64_t id) noexcept nogil:
    return <uint32_t>((id * <uint64_t>0x9E3779B97F4A7C15u) >> 52)


cdef Entry *object_slot(Objects *objects, uint64_t id) noexcept nogil:
    """The entry for a new object `id`; null when memory is short."""
    cdef Page *page
    cdef Page *fresh
    cdef SparseEntry *node
    if id < DENSE_IDS:
        page = <Page *>hesper_load_pointer(<void **>&objects.pages[id >> PAGE_BITS])
        if page == NULL:
            fresh = <Page *>calloc(1, sizeof(Page))
            if fresh == NULL:
                return NULL
            page = <Page *>hesper_publish_pointer(<void **>&objects.pages[id >> PAGE_BITS], fresh)
            if page != fresh:
                free(fresh)
        return &page.entries[id & (PAGE_ENTRIES - 1)]
    hesper_spin_lock(&objects.sparse_lock)
    node = objects.sparse_free
    if node != NULL:
        objects.sparse_free = node.free
    else:
        node = <SparseEntry *>calloc(1, sizeof(SparseEntry))
    if node != NULL:
        node.kin.id = id
        node.chain = objects.sparse[sparse_slot(id)]
        objects.sparse[sparse_slot(id)] = node
    hesper_spin_unlock(&objects.sparse_lock)
    return &node.entry if node != NULL else NULL


cdef inline Kin *object_kin(Objects *objects, uint64_t id, Entry *entry) noexcept nogil:
    if id < DENSE_IDS:
        return &objects.pages[id >> PAGE_BITS].kin[id & (PAGE_ENTRIES - 1)]
    return &(<SparseEntry *>entry).kin


cdef Entry *object_add(
    Objects *objects, uint64_t id, uint32_t type, uint64_t handle, hesper_function *table,
    uint32_t device, uint64_t device_id, uint64_t parent_id,
) noexcept nogil:
    """Make an object; the caller has checked that the id is free.  Null when a limit is reached."""
    cdef Entry *entry
    cdef Kin *kin
    if hesper_add(&objects.live, 1) > objects.limit:
        hesper_add(&objects.live, <uint32_t>-1)
        return NULL
    entry = object_slot(objects, id)
    if entry == NULL:
        hesper_add(&objects.live, <uint32_t>-1)
        return NULL
    kin = object_kin(objects, id, entry)
    kin.id = id
    kin.device_id = device_id
    kin.parent_id = parent_id
    kin.entry = entry
    kin.parent = NULL
    kin.first_child = NULL
    kin.previous = NULL
    kin.next = NULL
    entry.handle = handle
    entry.table = table
    entry.device = device
    entry.extra = NULL
    if id > objects.highest:
        objects.highest = id
    hesper_store_release(&entry.type, type)
    return entry


cdef void object_adopt(Objects *objects, uint64_t parent_id, Entry *parent, uint64_t id,
                       Entry *entry) noexcept nogil:
    """Hang a new object under its pool, so that it goes when the pool goes."""
    cdef Kin *pool = object_kin(objects, parent_id, parent)
    cdef Kin *kin = object_kin(objects, id, entry)
    kin.parent = pool
    kin.next = pool.first_child
    if kin.next != NULL:
        kin.next.previous = kin
    pool.first_child = kin


cdef void object_clear(Objects *objects, uint64_t id, Entry *entry) noexcept nogil:
    """Forget the children of an object."""
    cdef Kin *kin = object_kin(objects, id, entry)
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


cdef void object_remove(Objects *objects, uint64_t id, Entry *entry) noexcept nogil:
    """Forget an object and its children."""
    cdef Kin *kin = object_kin(objects, id, entry)
    object_clear(objects, id, entry)
    if kin.previous != NULL:
        kin.previous.next = kin.next
    elif kin.parent != NULL:
        kin.parent.first_child = kin.next
    if kin.next != NULL:
        kin.next.previous = kin.previous
    object_forget(objects, kin)


cdef void object_forget(Objects *objects, Kin *kin) noexcept nogil:
    cdef SparseEntry *node
    cdef SparseEntry **link
    cdef Entry *entry = kin.entry
    if entry == NULL or hesper_load_acquire(&entry.type) == NO_TYPE:
        return
    hesper_store_release(&entry.type, NO_TYPE)
    hesper_add(&objects.live, <uint32_t>-1)
    kin.parent = NULL
    kin.previous = NULL
    kin.next = NULL
    if kin.id >= DENSE_IDS:
        hesper_spin_lock(&objects.sparse_lock)
        link = &objects.sparse[sparse_slot(kin.id)]
        while link[0] != NULL and link[0].kin.id != kin.id:
            link = &link[0].chain
        node = link[0]
        if node != NULL:
            link[0] = node.chain
            node.free = objects.sparse_free
            objects.sparse_free = node
        hesper_spin_unlock(&objects.sparse_lock)


cdef void objects_free(Objects *objects) noexcept nogil:
    cdef uint32_t i
    cdef SparseEntry *node
    cdef SparseEntry *next
    for i in range(PAGES):
        free(objects.pages[i])
    for i in range(SPARSE_SLOTS):
        node = objects.sparse[i]
        while node != NULL:
            next = node.chain
            free(node)
            node = next
    node = objects.sparse_free
    while node != NULL:
        next = node.free
        free(node)
        node = next
