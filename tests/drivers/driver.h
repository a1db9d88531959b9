/* What the files of the fake Vulkan drivers share.  README.md says what they are for. */
#ifndef HESPER_FAKE_DRIVER_H
#define HESPER_FAKE_DRIVER_H

#define VK_NO_PROTOTYPES
#define VK_ENABLE_BETA_EXTENSIONS
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vulkan/vulkan.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define EXPORTED __attribute__((visibility("default")))
#define PRINTF(text, first) __attribute__((format(printf, text, first)))

/* Newer than the oldest headers that this compiles with. */
#define USAGE_HOST_TRANSFER 0x00400000u /* VK_IMAGE_USAGE_HOST_TRANSFER_BIT */
struct map_info { /* VkMemoryMapInfo */
    VkStructureType sType;
    const void *pNext;
    VkFlags flags;
    VkDeviceMemory memory;
    VkDeviceSize offset;
    VkDeviceSize size;
};
typedef VkResult(VKAPI_PTR *map_memory2)(VkDevice, const struct map_info *, void **);
struct push_info { /* VkPushDescriptorSetInfo */
    VkStructureType sType;
    const void *pNext;
    VkFlags stages;
    VkPipelineLayout layout;
    uint32_t set;
    uint32_t count;
    const VkWriteDescriptorSet *writes;
};
typedef void(VKAPI_PTR *push_set2)(VkCommandBuffer, const struct push_info *);

/* ---- modes.c: what each mode is ---- */

enum kind { PLAIN, MOLTENVK, KOSMICKRISP, DISCRETE, DISCRETE_EXPORT };

#define HOST_HANDLES                                                                              \
    (VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT |                                     \
     VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_MAPPED_FOREIGN_MEMORY_BIT_EXT)
#define FD_HANDLES                                                                                \
    (VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT | VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT)

struct mode {
    const char *name;
    enum kind kind;
    VkPhysicalDeviceType device_type;
    uint32_t heap_count, type_count;
    VkMemoryHeapFlags heaps[2];
    VkMemoryType types[5];
    uint32_t imported_types;    /* bits of the types that take a host pointer */
    uint32_t exported_types;    /* bits of the types that can be exported as descriptors */
    VkFlags exported_handles;   /* as which handle types */
    bool exports_map;           /* whether such a descriptor can be mapped */
    VkDeviceSize page;          /* pointers and sizes of imported memory are multiples of it */
    VkResult misaligned;        /* what an import says that is not */
    VkDeviceSize tiled_alignment, other_alignment;
    uint32_t queue_families;
    bool sparse;
    bool no_null;               /* without nullDescriptor and robustBufferAccess2 */
    bool no_linear_attachments; /* what formats' features say; of kinds of images see formats.c */
    const char *const *hidden;  /* extensions of lavapipe's that are not offered; a * at the end is a glob */
    const char *const *added;   /* extensions that are offered beside lavapipe's */
};
extern const struct mode *mode; /* chosen once, when the library is loaded */
const struct mode *find_mode(const char *name);

/* ---- loader.c: lavapipe, and who answers for a command ---- */

#define REAL_COMMANDS(X)                                                                          \
    X(vkGetDeviceProcAddr) X(vkDestroyInstance) X(vkCreateDevice) X(vkDestroyDevice)              \
    X(vkEnumerateDeviceExtensionProperties) X(vkGetPhysicalDeviceMemoryProperties2)               \
    X(vkGetPhysicalDeviceProperties2) X(vkGetPhysicalDeviceFeatures2)                             \
    X(vkGetPhysicalDeviceQueueFamilyProperties2) X(vkGetPhysicalDeviceFormatProperties2)          \
    X(vkGetPhysicalDeviceImageFormatProperties2) X(vkGetPhysicalDeviceExternalBufferProperties)   \
    X(vkGetPhysicalDeviceSparseImageFormatProperties2) X(vkGetPhysicalDeviceSurfaceSupportKHR)    \
    X(vkGetDeviceQueue) X(vkGetDeviceQueue2) X(vkCreateCommandPool) X(vkAllocateMemory)           \
    X(vkFreeMemory) X(vkMapMemory) X(vkUnmapMemory) X(vkCreateBuffer) X(vkDestroyBuffer)          \
    X(vkCreateImage) X(vkDestroyImage) X(vkCreateImageView) X(vkGetBufferMemoryRequirements2)     \
    X(vkGetImageMemoryRequirements2) X(vkGetDeviceBufferMemoryRequirements)                       \
    X(vkGetDeviceImageMemoryRequirements) X(vkBindBufferMemory2) X(vkBindImageMemory2)            \
    X(vkQueueBindSparse) X(vkWaitForFences) X(vkWaitSemaphores) X(vkQueueSubmit)                  \
    X(vkCreateFence) X(vkDestroyFence) X(vkUpdateDescriptorSets) X(vkCmdBindVertexBuffers)        \
    X(vkCmdBindVertexBuffers2)

struct real {
#define X(name) PFN_##name name;
    REAL_COMMANDS(X)
#undef X
    map_memory2 vkMapMemory2;
    PFN_vkCmdPushDescriptorSetKHR push_set;
    push_set2 push_set2;
};
extern struct real real; /* lavapipe's commands; there once an instance has been made */

struct override {
    const char *name;
    PFN_vkVoidFunction function;
};
#define OVERRIDE(name, function) {name, (PFN_vkVoidFunction)(function)}
/* Each ends with an empty one.  Those of device.c are for every mode, the others not for PLAIN. */
extern const struct override device_overrides[], physical_overrides[], format_overrides[],
    memory_overrides[], resource_overrides[], view_overrides[], null_overrides[];

/* ---- control.c: what the control file says ---- */

enum action { RESULT, LOST, NEVER, HANG, SEGV, ABORT };

struct rule {
    char command[64];    /* fnmatch pattern */
    uint64_t from, to;   /* calls, counted from 1 */
    uint64_t above;      /* allocations larger than this */
    enum action action;
    VkResult result;
    uint64_t calls;
};
void open_control(const char *path); /* reads mode and lavapipe, once */
extern char lavapipe_path[512];
/* What buffers' places in memory and descriptors' in buffers are multiples of; 0: the mode's, and
 * lavapipe's. */
extern uint64_t buffer_places, descriptor_places;
extern bool is_processor; /* whether the device says what lavapipe says that it is */
/* What the first rule that applies to this call does; NULL when none does. */
const struct rule *match_rule(const char *command, const uint64_t *arguments);
bool all_are_lost(void); /* whether there is a rule "* N lost" */

/* ---- faults.c and thunks.S: what comes before each command ---- */

PFN_vkVoidFunction with_faults(const char *name, PFN_vkVoidFunction target);
void note_queue(VkDevice device, VkQueue queue);
void forget_device(VkDevice device);

/* ---- objects.c: what is known of memory, buffers and images ---- */

enum object_kind { MEMORY, BUFFER, IMAGE };

struct object {
    struct object *next;
    uint64_t handle;
    enum object_kind kind;
    /* MEMORY */
    uint32_t type;
    VkFlags imported, exported; /* handle types */
    uint64_t dedicated;         /* the buffer or image; 0: none */
    VkDeviceSize size;
    bool mapped;
    void *pages; /* of an exported or imported descriptor; NULL otherwise */
    size_t length;
    int fd;
    /* BUFFER and IMAGE */
    VkFlags handles;
    VkFlags usage;
    VkFlags flags;
    VkFormat format;
    bool tiled;
};
void add_object(const struct object *object);
bool get_object(enum object_kind kind, uint64_t handle, struct object *copy);
void set_mapped(uint64_t memory, bool mapped);
bool take_object(enum object_kind kind, uint64_t handle, struct object *copy);

/* ---- chains.c ---- */

struct arena {
    size_t used;
    _Alignas(16) char bytes[4096];
};
const void *find_in_chain(const void *chain, VkStructureType type);
/* A copy of `chain` without structs of type `left_out`.  Structs of unknown size end the process. */
void *copy_chain(struct arena *arena, const void *chain, VkStructureType left_out);

/* ---- formats.c ---- */

#define ATTACHMENTS                                                                               \
    (VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT |          \
     VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSIENT_ATTACHMENT_BIT)

bool is_depth_stencil(VkFormat format);
/* VK_SUCCESS, or why the mode has no such linear image. */
VkResult check_linear(VkFormat format, VkImageType type, VkImageUsageFlags usage);
VkExternalMemoryProperties handle_properties(VkFlags handle, bool is_image, bool is_tiled);

/* ---- diagnosis, in modes.c ---- */

/* A rule that Vulkan has no result for is broken: says which on the standard error, and aborts. */
_Noreturn void broken(const char *rule, const char *format, ...) PRINTF(2, 3);
/* Says why on the standard error, and returns `result`. */
VkResult refused(VkResult result, const char *format, ...) PRINTF(2, 3);

#endif
