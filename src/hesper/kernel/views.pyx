"""C memory as Python sees it: structs by field name, arrays by index; `views.pyi`."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from hesper.kernel.core.arena cimport arena_free, arena_init, arena_take_zeroed
from hesper.kernel.core.decode cimport length_of
from hesper.kernel.core.structs cimport struct_by_stype
from hesper.kernel.core.tables cimport *


cdef class Memory:
    """Where views lie: an arena, and whether it still holds what they show."""

    cdef void *take(self, size_t size) except NULL:
        if not self.alive:
            raise ReferenceError("this memory was given back: keep no view beyond its command")
        cdef void *memory
        with nogil:             # it may wait for what other threads give back
            memory = arena_take_zeroed(self.arena, size if size else 1)
        if memory == NULL:
            raise MemoryError("the arena's limit is reached")
        return memory


cdef class Scratch(Memory):
    def __cinit__(self):
        if arena_init(&self.own, <size_t>1 << 32, NULL):
            raise MemoryError
        self.arena = &self.own
        self.alive = True

    def __dealloc__(self):
        arena_free(&self.own)

    def new(self, struct, /, **fields):
        return new_struct(self, struct, fields)

    def array(self, struct, count):
        return new_array(self, struct, count)


struct_indices = {}
command_indices = {}
handle_indices = {}
cdef dict field_maps = {}
cdef dict scalar_sizes = {
    "uint8_t": (1, 0), "int8_t": (1, FIELD_SIGNED), "uint16_t": (2, 0), "uint32_t": (4, 0),
    "int32_t": (4, FIELD_SIGNED), "uint64_t": (8, 0), "int64_t": (8, FIELD_SIGNED),
    "size_t": (8, 0), "float": (4, FIELD_FLOAT), "double": (8, FIELD_FLOAT),
}


cdef void build_indices():
    cdef uint32_t i
    for i in range(hesper_struct_count):
        struct_indices[hesper_structs[i].name.decode()] = i
    for i in range(hesper_command_count):
        command_indices[hesper_commands[i].name.decode()] = i
    for i in range(hesper_handle_count):
        handle_indices[hesper_handle_names[i].decode()] = i


build_indices()


cdef dict fields_by_name(uint32_t start, uint32_t count):
    cdef uint32_t i
    found = field_maps.get(start)
    if found is None:
        found = {hesper_fields[start + i].name.decode(): start + i for i in range(count)}
        field_maps[start] = found
    return found


cdef View struct_view(Memory memory, uint32_t index, void *at):
    cdef const hesper_struct *type = &hesper_structs[index]
    cdef View view = View.__new__(View)
    view.memory = memory
    view.at = <uint8_t *>at
    view.struct_index = <int32_t>index
    view.first_field = type.fields
    view.field_count = type.field_count
    view.name = type.name
    return view


cdef View new_struct(Memory memory, str struct, dict fields):
    cdef uint32_t index = struct_indices[struct]
    cdef const hesper_struct *type = &hesper_structs[index]
    cdef void *at = memory.take(type.size)
    if type.stype >= 0:
        (<uint32_t *>at)[0] = <uint32_t>type.stype
    cdef View view = struct_view(memory, index, at)
    for name, value in fields.items():
        setattr(view, name, value)
    return view


cdef Array new_array(Memory memory, str struct, size_t count):
    cdef Array array = Array.__new__(Array)
    cdef const hesper_struct *type
    cdef size_t i
    array.memory = memory
    array.count = count
    array.ref = 0
    scalar = scalar_sizes.get(struct)
    if scalar is not None:
        array.kind = KIND_SCALAR
        array.size, array.flags = scalar
    elif struct in handle_indices:
        array.kind = KIND_HANDLE
        array.size = 8
    else:
        array.kind = KIND_STRUCT
        array.ref = struct_indices[struct]
        array.size = hesper_structs[array.ref].size
    if array.size and count > (<size_t>1 << 32) // array.size:
        raise MemoryError(f"{count} elements of {struct}")
    array.at = <uint8_t *>memory.take(count * array.size)
    if array.kind == KIND_STRUCT:
        type = &hesper_structs[array.ref]
        if type.stype >= 0:
            for i in range(count):
                (<uint32_t *>(array.at + i * type.size))[0] = <uint32_t>type.stype
    return array


cdef object read_scalar(const uint8_t *at, uint32_t size, uint8_t flags):
    if flags & FIELD_FLOAT:
        return (<const float *>at)[0] if size == 4 else (<const double *>at)[0]
    if size == 4:
        return (<const int32_t *>at)[0] if flags & FIELD_SIGNED else (<const uint32_t *>at)[0]
    if size == 8:
        return (<const int64_t *>at)[0] if flags & FIELD_SIGNED else (<const uint64_t *>at)[0]
    if size == 2:
        return (<const uint16_t *>at)[0]
    return at[0]


cdef int write_scalar(uint8_t *at, uint32_t size, uint8_t flags, object value) except -1:
    cdef uint64_t bits
    cdef double number
    if flags & FIELD_FLOAT:
        number = value
        if size == 4:
            (<float *>at)[0] = <float>number
        else:
            (<double *>at)[0] = number
        return 0
    limit = (<object>1) << (8 * size)
    if not -(limit >> 1) <= value < limit:
        raise OverflowError(f"{value} does not fit into {size} bytes")
    bits = <uint64_t>(int(value) & 0xffffffffffffffff)
    memcpy(at, &bits, size)
    return 0


cdef object read_element(Memory memory, uint8_t kind, uint8_t flags, uint32_t ref, uint32_t size,
                         uint8_t *at):
    if kind == KIND_STRUCT or kind == KIND_UNION:
        return struct_view(memory, ref, at)
    if kind == KIND_HANDLE:
        return (<uint64_t *>at)[0]
    return read_scalar(at, size, flags)


cdef uint64_t address_of(object value) except? 0xffffffffffffffff:
    if value is None:
        return 0
    if isinstance(value, View):
        return <uint64_t>(<View>value).at
    if isinstance(value, Array):
        return <uint64_t>(<Array>value).at
    return value


cdef class View:
    @property
    def struct_(self):
        return self.name.decode()

    @property
    def address_(self):
        return <uint64_t>self.at

    def fields_(self):
        return list(fields_by_name(self.first_field, self.field_count))

    cdef const hesper_field *field(self, str name) except NULL:
        index = fields_by_name(self.first_field, self.field_count).get(name)
        if index is None:
            raise AttributeError(f"{self.name.decode()} has no field {name}")
        if not self.memory.alive:
            raise ReferenceError(f"{self.name.decode()} is gone: keep no view beyond its command")
        return &hesper_fields[<uint32_t>index]

    def __getattr__(self, str name):
        cdef const hesper_field *f = self.field(name)
        cdef uint8_t *at = self.at + f.offset
        cdef Array array
        cdef uint64_t count
        if f.shape == SHAPE_VALUE:
            return read_element(self.memory, f.kind, f.flags, f.ref, f.size, at)
        if f.shape == SHAPE_FIXED:
            count = hesper_lengths[f.length].constant
            if f.kind == KIND_CHAR:
                return at[:count].split(b"\0", 1)[0].decode("utf-8", "replace")
            if f.size == 1:
                return <bytes>at[:count]
            return array_at(self.memory, f, at, count)
        at = (<uint8_t **>at)[0]
        if f.shape == SHAPE_NULL or f.shape == SHAPE_CHAIN or f.shape == SHAPE_NESTED:
            return <uint64_t>at
        if at == NULL:
            return None
        if f.shape == SHAPE_STRING:
            return (<const char *>at).decode("utf-8", "replace")
        if f.shape == SHAPE_POINTER:
            if f.kind == KIND_STRUCT or f.kind == KIND_UNION:
                return struct_view(self.memory, f.ref, at)
            return array_at(self.memory, f, at, 1)
        count = length_of(&hesper_lengths[f.length], self.at)
        if f.kind == KIND_BLOB:
            return <bytes>at[:count]
        array = array_at(self.memory, f, at, count)
        if f.shape == SHAPE_STRINGS:
            array.kind = KIND_CHAR
            array.size = 8
        return array

    def __setattr__(self, str name, value):
        cdef const hesper_field *f = self.field(name)
        cdef uint8_t *at = self.at + f.offset
        cdef uint64_t count
        cdef bytes text
        if f.shape == SHAPE_VALUE:
            if f.kind == KIND_HANDLE:
                (<uint64_t *>at)[0] = 0 if value is None else value
            elif f.kind == KIND_STRUCT or f.kind == KIND_UNION:
                if not isinstance(value, View) or (<View>value).struct_index != f.ref:
                    raise TypeError(f"{name}: not a {hesper_structs[f.ref].name.decode()}")
                memcpy(at, (<View>value).at, f.size)
            else:
                write_scalar(at, f.size, f.flags, value)
        elif f.shape == SHAPE_FIXED:
            count = hesper_lengths[f.length].constant
            if f.kind == KIND_CHAR:
                value = value.encode() + b"\0"
            if f.size == 1:
                if len(value) > count:
                    raise ValueError(f"{name}: {len(value)} bytes where {count} fit")
                text = bytes(value)
                memset(at, 0, count)
                memcpy(at, <const char *>text, len(text))
            else:
                array = array_at(self.memory, f, at, count)
                for i, item in enumerate(value):
                    array[i] = item
        else:
            self.set_pointer(f, at, value)

    cdef int set_pointer(self, const hesper_field *f, uint8_t *at, object value) except -1:
        """Store an address, or copy a Python value into this view's memory and point there."""
        cdef Array array
        cdef uint8_t *copy
        cdef bytes text
        if value is None or isinstance(value, (int, View, Array)):
            (<uint64_t *>at)[0] = address_of(value)
            if isinstance(value, Array):
                self.set_count(f, len(value))
            return 0
        if f.shape == SHAPE_STRING:
            value = value.encode() + b"\0"
        if isinstance(value, (bytes, bytearray, memoryview)):
            text = bytes(value)
            copy = <uint8_t *>self.memory.take(len(text))
            memcpy(copy, <const char *>text, len(text))
            (<uint8_t **>at)[0] = copy
            if f.shape != SHAPE_STRING:
                self.set_count(f, len(text) // f.size)
            return 0
        array = array_at(self.memory, f, NULL, len(value))
        if f.shape == SHAPE_STRINGS:
            array.kind = KIND_CHAR
            array.size = 8
        array.at = <uint8_t *>self.memory.take(array.count * array.size)
        for i, item in enumerate(value):
            array[i] = item
        (<uint8_t **>at)[0] = array.at
        self.set_count(f, len(value))
        return 0

    cdef int set_count(self, const hesper_field *f, size_t count) except -1:
        cdef const hesper_field *counter
        if f.count_field:
            counter = &hesper_fields[self.first_field + f.count_field - 1]
            write_scalar(self.at + counter.offset, counter.size, counter.flags, count)
        return 0

    def pointer_(self, str name):
        cdef const hesper_field *f = self.field(name)
        if f.shape == SHAPE_VALUE or f.shape == SHAPE_FIXED:
            raise TypeError(f"{name} is no pointer")
        return (<uint64_t *>(self.at + f.offset))[0]

    def copy_(self, View source):
        if self.struct_index < 0 or source.struct_index != self.struct_index:
            raise TypeError(f"{source.struct_} copied to {self.struct_}")
        cdef const hesper_struct *type = &hesper_structs[self.struct_index]
        cdef hesper_base *base = <hesper_base *>self.at
        cdef hesper_base *next = base.pNext if type.stype >= 0 else NULL
        memcpy(self.at, source.at, type.size)
        if type.stype >= 0:
            base.pNext = next

    cdef hesper_base **next_link(self) except NULL:
        if self.struct_index < 0 or hesper_structs[self.struct_index].stype < 0:
            raise TypeError(f"{self.struct_} has no pNext chain")
        if not self.memory.alive:
            raise ReferenceError(f"{self.struct_} is gone: keep no view beyond its command")
        return &(<hesper_base *>self.at).pNext

    def chain_(self):
        cdef hesper_base *node = self.next_link()[0]
        cdef const hesper_struct *type
        found = []
        while node != NULL:
            type = struct_by_stype(node.sType)
            if type != NULL:
                found.append(struct_view(self.memory, <uint32_t>(type - &hesper_structs[0]), node))
            node = node.pNext
        return iter(found)

    def find_(self, str struct):
        for view in self.chain_():
            if view.struct_ == struct:
                return view
        return None

    def remove_(self, str struct):
        cdef uint32_t index = struct_indices[struct]
        cdef hesper_base **link = self.next_link()
        cdef hesper_base *node
        while link[0] != NULL:
            node = link[0]
            if <int64_t>node.sType == hesper_structs[index].stype:
                link[0] = node.pNext
                node.pNext = NULL
                return struct_view(self.memory, index, node)
            link = &node.pNext
        return None

    def push_(self, str struct, /, **fields):
        cdef hesper_base **link = self.next_link()
        cdef View view = new_struct(self.memory, struct, fields)
        view.next_link()[0] = link[0]
        link[0] = <hesper_base *>view.at
        return view

    def __repr__(self):
        return f"<{self.struct_} at {self.address_:#x}>"


cdef Array array_at(Memory memory, const hesper_field *f, uint8_t *at, size_t count):
    cdef Array array = Array.__new__(Array)
    array.memory = memory
    array.at = at
    array.count = count
    array.kind = f.kind
    array.flags = f.flags
    array.ref = f.ref
    array.size = f.size
    return array


cdef class Array:
    @property
    def address_(self):
        return <uint64_t>self.at

    def __len__(self):
        return self.count

    cdef uint8_t *element(self, Py_ssize_t index) except NULL:
        if index < 0:
            index += self.count
        if index < 0 or <size_t>index >= self.count:
            raise IndexError(f"element {index} of {self.count}")
        if not self.memory.alive:
            raise ReferenceError("this array is gone: keep none beyond its command")
        return self.at + <size_t>index * self.size

    def __getitem__(self, Py_ssize_t index):
        cdef uint8_t *at = self.element(index)
        if self.kind == KIND_CHAR:
            return (<const char **>at)[0].decode("utf-8", "replace")
        return read_element(self.memory, self.kind, self.flags, self.ref, self.size, at)

    def __setitem__(self, Py_ssize_t index, value):
        cdef uint8_t *at = self.element(index)
        cdef uint8_t *copy
        cdef bytes text
        if self.kind == KIND_CHAR:
            text = value.encode() + b"\0"
            copy = <uint8_t *>self.memory.take(len(text))
            memcpy(copy, <const char *>text, len(text))
            (<uint8_t **>at)[0] = copy
        elif self.kind == KIND_STRUCT or self.kind == KIND_UNION:
            if not isinstance(value, View) or <uint32_t>(<View>value).struct_index != self.ref:
                raise TypeError(f"not a {hesper_structs[self.ref].name.decode()}")
            memcpy(at, (<View>value).at, self.size)
        elif self.kind == KIND_HANDLE:
            (<uint64_t *>at)[0] = 0 if value is None else value
        else:
            write_scalar(at, self.size, self.flags, value)

    def __iter__(self):
        for i in range(self.count):
            yield self[i]
