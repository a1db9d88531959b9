/* The wire programs and what describes C memory to Python: tables made from the registry by
 * hesper.protocol.compiler, read by the kernel.  One program holds the operations that carry a
 * struct or a command's parameters between the wire and C memory, in wire order. */
#ifndef HESPER_WIRE_H
#define HESPER_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum {
    OP_COPY = 0,       /* size bytes, equal on the wire and in C */
    OP_NARROW,         /* 4 bytes on the wire, size (1 or 2) in C */
    OP_HANDLE,         /* u64 id; ref: handle type */
    OP_STRUCT,         /* ref: struct, in place */
    OP_UNION,          /* u32 tag; ref: union, in place; inner_from, inner_step: its selector */
    OP_STYPE,          /* u32 that must be the struct's sType; ref: struct */
    OP_CHAIN,          /* the pNext chain; ref: struct */
    OP_NULL,           /* u64 0 */
    OP_FIXED_COPY,     /* u64 length, elements of size bytes, padded to 4 */
    OP_FIXED_STRUCT,   /* u64 length, elements; ref: struct */
    OP_POINTER_COPY,   /* u64 0 or 1, size bytes */
    OP_POINTER_STRUCT, /* u64 0 or 1, struct; ref: struct */
    OP_POINTER_HANDLE, /* u64 0 or 1, u64 id; ref: handle type */
    OP_ARRAY_COPY,     /* u64 length, elements of size bytes, padded to 4 */
    OP_ARRAY_STRUCT,   /* u64 length, elements; ref: struct */
    OP_ARRAY_HANDLE,   /* u64 length, u64 ids; ref: handle type */
    OP_STRING,         /* u64 size, bytes, padded to 4 */
    OP_STRINGS,        /* u64 length, strings */
    OP_NESTED_COPY,    /* u64 length, arrays of size-byte elements of the inner length */
    OP_NESTED_STRUCT,  /* u64 length, arrays of structs of the inner length; ref: struct */
    /* Output parameters on the way in: memory is made, little or nothing is read. */
    OP_POINTER_OUT,     /* u64 0 or 1; size bytes of memory */
    OP_POINTER_PARTIAL, /* u64 0 or 1, partial struct; ref: struct */
    OP_ARRAY_OUT,       /* u64 length; size bytes of memory an element */
    OP_ARRAY_PARTIAL,   /* u64 length, partial structs; ref: struct */
    OP_STRUCT_PARTIAL,  /* ref: struct, in place */
    OP_FIXED_PARTIAL,   /* u64 length, partial structs in place; ref: struct */
    OP_CHAIN_PARTIAL,   /* the pNext chain, partial; ref: struct */
    /* Nothing on the wire: relations between what has been decoded. */
    OP_CHECK,       /* `length` of them, from `ref` on */
    OP_CHECK_LIMIT, /* one: the u32 at `offset`, and at inner_from if inner_step is 1, <= a limit;
                     * or, if that is 2, below 16 and with its bit in `inner`; 3: relations, so
                     * many as length says, that are meant only then */
    OP_SETS,        /* descriptors against the layouts of their sets; ref: LOOK_... */
    /* Nor here: what is decoded must lie within bounds.  These stand last. */
    OP_BOUND,       /* ref: index into hesper_bounds */
    OP_BOUND_COPIES, /* structs of size bytes at the pointer at offset, so many as the u32 at inner_from
                     * says, that hold two offsets and a size from inner_step on; length: as `ref`
                     * before, for the first handle, then for the second */
    OP_BOUND_SAME,   /* the u32 at offset has the size in the extent of the handle in slot `inner` */
    OP_BOUND_PUSHED, /* the u32 at offset and that at `size` lie in the push constants of the pipeline
                      * layout at inner_from, in slot `inner` */
    OP_BOUND_OWNERS  /* the u32 at offset and the one behind it are queue families, or the same */
};

enum {
    FLAG_NULLABLE = 1, /* a null pointer is allowed, and no elements where a length says otherwise */
    FLAG_FIRST = 2,    /* the handle that a command is called on */
    FLAG_VICTIM = 4,   /* the handle (or handles) a command destroys */
    FLAG_PARENT = 8,   /* the pool that new objects belong to */
    FLAG_MEASURED = 16, /* a handle whose object's extent counts; inner: which of them */
    FLAG_NOTED = 32, /* a handle of whose object a relation wants to know facts */
    FLAG_REQUIRED = 64, /* a handle that is not null */
    FLAG_FEATURE = 128 /* one that may be null by a feature of the device */
};

/* What OP_SETS looks at: see facts/sets.toml. */
enum {
    LOOK_WRITE = 0, LOOK_COPY, LOOK_UPDATE, LOOK_PUSH, LOOK_PUSH_INFO, LOOK_BIND, LOOK_BIND_INFO,
    LOOK_LAYOUT, LOOK_ALLOCATE, LOOK_PIPELINE, LOOK_TEMPLATE
};

enum {
    LENGTH_CONSTANT = 0,
    LENGTH_FIELD,        /* at `first` */
    LENGTH_DEREF,        /* through the pointer at `first` */
    LENGTH_POINTER_FIELD /* at `second` in the struct the pointer at `first` points to */
};

typedef struct {
    uint8_t mode;
    uint8_t width; /* 4 or 8 */
    uint32_t first;
    uint32_t second;
    uint32_t constant;
    uint32_t add;
    uint32_t divide;
} hesper_length;

typedef struct {
    uint8_t code;
    uint8_t flags;
    uint16_t ref;
    uint16_t length;     /* index into hesper_lengths */
    uint16_t inner;      /* OP_NESTED_*: index into hesper_lengths */
    uint32_t offset;     /* in C memory */
    uint32_t size;
    uint32_t inner_from; /* OP_NESTED_*: offset of the sibling array that holds inner lengths */
    uint32_t inner_step; /* its element size; 0: the inner length is a constant */
} hesper_op;

/* Relations: see protocol/relations.py.  A path is a run of steps that ends with STEP_VALUE or
 * STEP_GIVEN. */
enum {
    STEP_VALUE = 0, /* the number at `offset`, and the one at `other` if it has a width */
    STEP_FACT,      /* fact `width` of the object whose handle stands at `offset` */
    STEP_GIVEN,     /* whether the pointer at `offset` is not null */
    STEP_TO,        /* where the pointer at `offset` points to */
    STEP_CHAIN,     /* the chained struct of sType `size` of the struct at `offset` */
    STEP_EACH,      /* elements of `size` bytes, which the pointer at `offset` points to */
    STEP_FIXED,     /* elements of `size` bytes at `offset` */
    STEP_AT         /* the one of STEP_EACH that the number at `other` beside LEFT says */
};

typedef struct {
    uint8_t code;
    uint8_t width;
    uint8_t other_width; /* 0: there is no other; REST: all ones count as 1 */
    uint16_t length;     /* STEP_EACH, STEP_FIXED: index into hesper_lengths */
    uint32_t offset;
    uint32_t other; /* STEP_EACH, STEP_FIXED: where the struct begins that has the length */
    uint32_t size;
} hesper_step;

enum {
    TERM_VALUE = 0,
    TERM_PATH,
    TERM_BITS,
    TERM_LEVELS,
    TERM_LIMIT,
    TERM_AT,
    TERM_LAST,
    TERM_ASPECTS
};

enum { REST = 0x80, FACTS = 4 };

typedef struct {
    uint8_t kind;
    uint8_t width;  /* of a limit */
    uint16_t step;  /* of a path: index into hesper_steps */
    uint64_t value; /* of a limit: its offset in VkPhysicalDeviceLimits and what follows it */
} hesper_term;

typedef struct {
    uint16_t step;
    uint16_t values, value_count; /* into hesper_values */
    uint8_t kind;
    uint8_t unless;
    uint64_t mask; /* CONDITION_HAS: the bits; CONDITION_IN: a bit for every value below 64 */
} hesper_condition;

enum { CONDITION_IN = 0, CONDITION_HAS, CONDITION_GIVEN };

enum { MUST_EQUAL = 0, MUST_NOT_EXCEED, MUST_REACH, MUST_BE_BELOW, MUST_BE_AMONG, MUST_BE_GIVEN };

enum { REMEDY_NONE = 0, REMEDY_DROP, REMEDY_PAD, REMEDY_SET, REMEDY_CLEAR };

typedef struct {
    const char *text;
    uint16_t left;                        /* into hesper_steps */
    uint16_t right, right_count;          /* into hesper_terms */
    uint16_t values, value_count;         /* into hesper_values */
    uint16_t conditions, condition_count; /* into hesper_conditions */
    uint8_t comparison;
    uint8_t remedy;
    uint8_t total;        /* the sum of LEFT's places is meant */
    uint8_t local;        /* it is about numbers of the struct itself, and values, alone */
    uint8_t quick;        /* the first condition: a u32 of the struct itself, not `unless` */
    uint32_t when;        /* its offset */
    uint64_t mask;        /* a bit for every value below 64 that meets it */
    uint32_t beside;      /* offset of the array to pad, or of the count of that to drop from */
    uint32_t beside_size; /* of an element of it, or of the count */
} hesper_relation;

/* What bounds a place: the object behind a handle, or behind each of an array. */
enum { BOUND_HANDLE = 0, BOUND_HANDLES };

/* How much lies there, in what the bound counts: bytes, queries, elements. */
enum {
    SPAN_BYTES = 0, /* `bytes` */
    SPAN_FIELD,     /* what the field at span_at says */
    SPAN_STRIDE,    /* the count at span_at, `stride` apart, the last one of `bytes` */
    SPAN_QUERIES,   /* the same, the last one a query's results; the pool is the first handle */
    SPAN_TEXELS,    /* a region of a VkBufferImageCopy; the image is the other handle */
    SPAN_NEEDS,     /* what the buffer or image at span_at needs of memory */
    SPAN_BOX,       /* a VkOffset3D at first, a VkExtent3D at span_at, of the image's `part` */
    SPAN_CORNERS,   /* two VkOffset3D at first, of the image's `part` */
    SPAN_TILE,      /* what a VkSparseImageMemoryBind covers; the image is two slots on */
    /* Whole structs: what is seen of an image, what is rendered to. */
    SPAN_VIEW,
    SPAN_FRAMEBUFFER,
    SPAN_PASS,
    SPAN_ATTACHED,
    SPAN_RENDERING,
    /* What a command buffer does to that, which is kept beside it. */
    SPAN_BEGUN,
    SPAN_CLEARED,
    SPAN_EXECUTED,
    SPAN_NEXT,
    SPAN_CODE, /* a VkShaderModuleCreateInfo */
    SPAN_LIBRARIES, /* a VkPipelineLibraryCreateInfoKHR */
    SPAN_LOCATED /* a vkCmdSetRenderingAttachmentLocations, or ...InputAttachmentIndices */
};

enum {
    BOUND_WHOLE = 1, /* a span of all ones goes to the end */
    BOUND_QUERY = 2, /* the lower half of the extent counts */
    BOUND_IMAGE = 4, /* what is asked what it needs is an image, not a buffer */
    BOUND_NEEDED = 8, /* what the handle's object needs of memory counts, not its extent */
    BOUND_SCALED = 16, /* the extent counts blocks of the other image */
    BOUND_ONE_LAYER = 32, /* the part is a VkImageSubresource */
    BOUND_GROUPS = 64 /* a pipeline's groups of shaders count */
};

#define BOUND_NOWHERE 0xffffffffu

typedef struct {
    uint8_t of;          /* BOUND_... */
    uint8_t span;        /* SPAN_... */
    uint8_t flags;
    uint8_t slot;        /* which of the measured handles */
    uint8_t first_width; /* 4 or 8 bytes */
    uint8_t span_width;
    uint32_t handle;     /* where the handle lies; null handles bound nothing */
    uint32_t list;       /* where the pointer to structs with a place each lies, or BOUND_NOWHERE */
    uint32_t count;      /* where the u32 lies that counts them, or the handles */
    uint32_t step;       /* size of one of them */
    uint32_t first;      /* where the first byte's field lies, or BOUND_NOWHERE for 0 */
    uint32_t span_at;
    uint32_t stride;     /* where that field lies, a uint32_t */
    uint32_t bytes;
    uint32_t part;       /* where a VkImageSubresourceLayers lies */
    uint32_t like;       /* and that of the other image, or BOUND_NOWHERE */
    uint32_t plain;      /* the common kind: no asking, no other handle */
} hesper_bound;

/* How the texels of a format lie in a buffer; a size of 0: there are none. */
typedef struct {
    uint8_t size;  /* bytes */
    uint8_t width; /* texels */
    uint8_t height;
    uint8_t across; /* texels of the image to one of the plane's, from left to right */
    uint8_t down;
} hesper_block;

typedef struct {
    uint32_t format;
    hesper_block flat; /* of all aspects together */
    hesper_block depth;
    hesper_block stencil;
    hesper_block planes[3];
} hesper_format;

/* What is remembered of an object: a product. */
typedef struct {
    uint16_t terms, term_count;
} hesper_fact;

enum {
    SHAPE_VALUE = 0,
    SHAPE_FIXED,
    SHAPE_POINTER,
    SHAPE_ARRAY,
    SHAPE_NESTED,
    SHAPE_STRING,
    SHAPE_STRINGS,
    SHAPE_NULL,
    SHAPE_CHAIN
};

enum { KIND_SCALAR = 0, KIND_HANDLE, KIND_STRUCT, KIND_UNION, KIND_BLOB, KIND_CHAR };

enum { FIELD_FLOAT = 1, FIELD_SIGNED = 2 };

typedef struct {
    const char *name;
    uint8_t kind;
    uint8_t shape;
    uint8_t flags;
    uint16_t ref; /* struct or handle type */
    uint16_t length;
    uint16_t count_field; /* index + 1 of the sibling that holds the length, 0: none */
    uint32_t offset;
    uint32_t size; /* of one element */
} hesper_field;

typedef struct {
    uint32_t tag;
    uint32_t op;    /* first operation of the case */
    uint32_t count; /* operations */
} hesper_case;

typedef struct {
    const char *name;
    int64_t stype; /* -1: none */
    uint32_t size;
    uint32_t full, full_count;
    uint32_t partial, partial_count;
    uint32_t fields, field_count;
    uint32_t cases, case_count;     /* unions */
    uint32_t extends, extend_count; /* into hesper_extends: structs whose chain it may join */
    uint8_t wire;                   /* whether a guest may send it */
} hesper_struct;

enum { RESULT_VOID = 0, RESULT_I32, RESULT_U32, RESULT_U64 };

/* On the wire: a command's number and flags; the length before an array. */
enum { COMMAND_HEADER_SIZE = 8, LENGTH_SIZE = 8 };

enum { FLAG_REPLY = 1 }; /* of a command: VK_COMMAND_GENERATE_REPLY_BIT_EXT */

enum { NO_COMMAND = 0xffff };

enum { LEVEL_GLOBAL = 0, LEVEL_INSTANCE, LEVEL_DEVICE, LEVEL_TRANSPORT };

/* What every struct that can be chained begins with. */
typedef struct hesper_base hesper_base;
struct hesper_base {
    uint32_t sType;
    hesper_base *pNext;
};

enum {
    TRAIT_MAY_BLOCK = 1,        /* the driver or the guest may take its time over it */
    TRAIT_WITH_LOST_DEVICE = 2, /* it is answered when its device is lost */
    TRAIT_HARMLESS = 4          /* nothing is missing where it has failed */
};

typedef void (*hesper_function)(void); /* any host function */
typedef void (*hesper_call_fn)(hesper_function function, void *parameters);

typedef struct {
    const char *name;
    const char *refused;        /* why a guest may not send it, or null */
    const char *const *aliases; /* other names the driver may know it by, null-terminated */
    hesper_call_fn call;        /* null: no host command */
    int32_t number;             /* on the wire, -1: none */
    uint32_t in, in_count;
    uint32_t out, out_count;
    uint32_t fields, field_count;
    uint32_t size; /* of the parameter block */
    uint32_t result_offset;
    uint32_t new_offset; /* of the pointer to created handles */
    uint16_t new_length; /* index into hesper_lengths */
    uint16_t new_type;   /* handle type + 1, 0: creates nothing */
    uint8_t result;
    uint8_t level;
    uint8_t destroys;   /* 1: victims go; 2: the children of the victim go (pool reset) */
    uint8_t new_single; /* one object, not an array */
    uint8_t traits;     /* TRAIT_... */
    uint16_t facts;     /* into hesper_facts: of what it makes */
    uint8_t fact_count;
} hesper_command;

/* All in one shared object: no indirection through its symbol table. */
#pragma GCC visibility push(hidden)
extern const hesper_length hesper_lengths[];
extern const hesper_op hesper_ops[];
extern const hesper_step hesper_steps[];
extern const hesper_term hesper_terms[];
extern const hesper_condition hesper_conditions[];
extern const uint64_t hesper_values[];
extern const hesper_relation hesper_relations[];
extern const hesper_bound hesper_bounds[];
extern const hesper_format hesper_formats[]; /* by VkFormat, ascending */
extern const uint32_t hesper_format_count;
extern const hesper_fact hesper_facts[];
extern const hesper_field hesper_fields[];
extern const hesper_case hesper_cases[];
extern const hesper_struct hesper_structs[];
extern const uint32_t hesper_struct_count;
extern const uint16_t hesper_extends[];
extern const uint16_t hesper_stype_index[]; /* hash table by sType: struct index + 1, 0: free */
extern const hesper_command hesper_commands[];
extern const uint32_t hesper_command_count;
extern const uint16_t hesper_command_index[]; /* by number, or NO_COMMAND */
extern const uint32_t hesper_number_count;
extern const char *const hesper_handle_names[];
extern const uint32_t hesper_handle_values[]; /* VkObjectType */
extern const uint32_t hesper_handle_count;
#pragma GCC visibility pop

#endif
