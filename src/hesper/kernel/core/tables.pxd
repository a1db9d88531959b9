"""The tables that are made of the registry, as C sees them: `includes/wire.h`."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "wire.h" nogil:
    cdef enum:
        OP_COPY, OP_NARROW, OP_HANDLE, OP_STRUCT, OP_UNION, OP_STYPE, OP_CHAIN, OP_NULL
        OP_FIXED_COPY, OP_FIXED_STRUCT
        OP_POINTER_COPY, OP_POINTER_STRUCT, OP_POINTER_HANDLE
        OP_ARRAY_COPY, OP_ARRAY_STRUCT, OP_ARRAY_HANDLE
        OP_STRING, OP_STRINGS, OP_NESTED_COPY, OP_NESTED_STRUCT
        OP_POINTER_OUT, OP_POINTER_PARTIAL, OP_ARRAY_OUT, OP_ARRAY_PARTIAL
        OP_STRUCT_PARTIAL, OP_FIXED_PARTIAL, OP_CHAIN_PARTIAL
        OP_CHECK, OP_CHECK_LIMIT, OP_SETS, OP_BOUND, OP_BOUND_COPIES
        OP_BOUND_SAME, OP_BOUND_PUSHED, OP_BOUND_OWNERS
    cdef enum:
        STEP_VALUE, STEP_FACT, STEP_GIVEN, STEP_TO, STEP_CHAIN, STEP_EACH, STEP_FIXED, STEP_AT
    cdef enum:
        TERM_VALUE, TERM_PATH, TERM_BITS, TERM_LEVELS, TERM_LIMIT, TERM_AT, TERM_LAST
        TERM_ASPECTS
    cdef enum:
        REST, FACTS
    cdef enum:
        CONDITION_IN, CONDITION_HAS, CONDITION_GIVEN
    cdef enum:
        MUST_EQUAL, MUST_NOT_EXCEED, MUST_REACH, MUST_BE_BELOW, MUST_BE_AMONG, MUST_BE_GIVEN
    cdef enum:
        REMEDY_NONE, REMEDY_DROP, REMEDY_PAD, REMEDY_SET, REMEDY_CLEAR
    cdef enum:
        FLAG_NULLABLE, FLAG_FIRST, FLAG_VICTIM, FLAG_PARENT, FLAG_MEASURED, FLAG_NOTED
        FLAG_REQUIRED, FLAG_FEATURE
    cdef enum:
        LOOK_WRITE, LOOK_COPY, LOOK_UPDATE, LOOK_PUSH, LOOK_PUSH_INFO, LOOK_BIND, LOOK_BIND_INFO
        LOOK_LAYOUT, LOOK_ALLOCATE, LOOK_PIPELINE, LOOK_TEMPLATE
    cdef enum:
        LENGTH_CONSTANT, LENGTH_FIELD, LENGTH_DEREF, LENGTH_POINTER_FIELD
    cdef enum:
        SHAPE_VALUE, SHAPE_FIXED, SHAPE_POINTER, SHAPE_ARRAY, SHAPE_NESTED
        SHAPE_STRING, SHAPE_STRINGS, SHAPE_NULL, SHAPE_CHAIN
    cdef enum:
        KIND_SCALAR, KIND_HANDLE, KIND_STRUCT, KIND_UNION, KIND_BLOB, KIND_CHAR
    cdef enum:
        FIELD_FLOAT, FIELD_SIGNED
    cdef enum:
        RESULT_VOID, RESULT_I32, RESULT_U32, RESULT_U64
    cdef enum:
        TRAIT_MAY_BLOCK, TRAIT_WITH_LOST_DEVICE, TRAIT_HARMLESS
    cdef enum:
        COMMAND_HEADER_SIZE, LENGTH_SIZE, FLAG_REPLY, NO_COMMAND
    cdef enum:
        LEVEL_GLOBAL, LEVEL_INSTANCE, LEVEL_DEVICE, LEVEL_TRANSPORT

    ctypedef struct hesper_base:
        uint32_t sType
        hesper_base *pNext

    ctypedef void (*hesper_function)()
    ctypedef void (*hesper_call_fn)(hesper_function function, void *parameters)

    ctypedef struct hesper_length:
        uint8_t mode
        uint8_t width
        uint32_t first
        uint32_t second
        uint32_t constant
        uint32_t add
        uint32_t divide

    ctypedef struct hesper_op:
        uint8_t code
        uint8_t flags
        uint16_t ref
        uint16_t length
        uint16_t inner
        uint32_t offset
        uint32_t size
        uint32_t inner_from
        uint32_t inner_step

    ctypedef struct hesper_step:
        uint8_t code
        uint8_t width
        uint8_t other_width
        uint16_t length
        uint32_t offset
        uint32_t other
        uint32_t size

    ctypedef struct hesper_term:
        uint8_t kind
        uint8_t width
        uint16_t step
        uint64_t value

    ctypedef struct hesper_condition:
        uint16_t step
        uint16_t values
        uint16_t value_count
        uint8_t kind
        uint8_t unless
        uint64_t mask

    ctypedef struct hesper_relation:
        const char *text
        uint16_t left
        uint16_t right
        uint16_t right_count
        uint16_t values
        uint16_t value_count
        uint16_t conditions
        uint16_t condition_count
        uint8_t comparison
        uint8_t remedy
        uint8_t total
        uint8_t local
        uint8_t quick
        uint32_t when
        uint64_t mask
        uint32_t beside
        uint32_t beside_size

    cdef enum:
        BOUND_HANDLE, BOUND_HANDLES
    cdef enum:
        SPAN_BYTES, SPAN_FIELD, SPAN_STRIDE, SPAN_QUERIES, SPAN_TEXELS, SPAN_NEEDS
        SPAN_BOX, SPAN_CORNERS, SPAN_TILE
        SPAN_VIEW, SPAN_FRAMEBUFFER, SPAN_PASS, SPAN_ATTACHED, SPAN_RENDERING
        SPAN_BEGUN, SPAN_CLEARED, SPAN_EXECUTED, SPAN_NEXT, SPAN_CODE, SPAN_LIBRARIES
        SPAN_LOCATED
    cdef enum:
        BOUND_NOWHERE, BOUND_WHOLE, BOUND_QUERY, BOUND_IMAGE, BOUND_NEEDED
        BOUND_SCALED, BOUND_ONE_LAYER, BOUND_GROUPS

    ctypedef struct hesper_bound:
        uint8_t of
        uint8_t span
        uint8_t flags
        uint8_t slot
        uint8_t first_width
        uint8_t span_width
        uint32_t handle
        uint32_t list
        uint32_t count
        uint32_t step
        uint32_t first
        uint32_t span_at
        uint32_t stride
        uint32_t bytes
        uint32_t part
        uint32_t like
        uint32_t plain

    ctypedef struct hesper_block:
        uint8_t size
        uint8_t width
        uint8_t height
        uint8_t across
        uint8_t down

    ctypedef struct hesper_format:
        uint32_t format
        hesper_block flat
        hesper_block depth
        hesper_block stencil
        hesper_block planes[3]

    ctypedef struct hesper_fact:
        uint16_t terms
        uint16_t term_count

    ctypedef struct hesper_field:
        const char *name
        uint8_t kind
        uint8_t shape
        uint8_t flags
        uint16_t ref
        uint16_t length
        uint16_t count_field
        uint32_t offset
        uint32_t size

    ctypedef struct hesper_case:
        uint32_t tag
        uint32_t op
        uint32_t count

    ctypedef struct hesper_struct:
        const char *name
        int64_t stype
        uint32_t size
        uint32_t full
        uint32_t full_count
        uint32_t partial
        uint32_t partial_count
        uint32_t fields
        uint32_t field_count
        uint32_t cases
        uint32_t case_count
        uint32_t extends
        uint32_t extend_count
        uint8_t wire

    ctypedef struct hesper_command:
        const char *name
        const char *refused
        const char *const *aliases
        hesper_call_fn call
        int32_t number
        uint32_t in_ "in"
        uint32_t in_count
        uint32_t out
        uint32_t out_count
        uint32_t fields
        uint32_t field_count
        uint32_t size
        uint32_t result_offset
        uint32_t new_offset
        uint16_t new_length
        uint16_t new_type
        uint8_t result
        uint8_t level
        uint8_t destroys
        uint8_t new_single
        uint8_t traits
        uint16_t facts
        uint8_t fact_count

    const hesper_length hesper_lengths[]
    const hesper_op hesper_ops[]
    const hesper_step hesper_steps[]
    const hesper_term hesper_terms[]
    const hesper_condition hesper_conditions[]
    const uint64_t hesper_values[]
    const hesper_relation hesper_relations[]
    const hesper_bound hesper_bounds[]
    const hesper_format hesper_formats[]
    const uint32_t hesper_format_count
    const hesper_fact hesper_facts[]
    const hesper_field hesper_fields[]
    const hesper_case hesper_cases[]
    const hesper_struct hesper_structs[]
    const uint32_t hesper_struct_count
    const uint16_t hesper_extends[]
    const uint16_t hesper_stype_index[]
    const hesper_command hesper_commands[]
    const uint32_t hesper_command_count
    const uint16_t hesper_command_index[]
    const uint32_t hesper_number_count
    const char *const hesper_handle_names[]
    const uint32_t hesper_handle_values[]
    const uint32_t hesper_handle_count
