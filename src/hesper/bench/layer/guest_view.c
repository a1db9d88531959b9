/* A Vulkan layer that shows a driver as a Venus guest sees it: without the extensions that Venus
 * does not carry, with Venus as the driver's id, and with memory mappable only where the guest can
 * map it.  Programs choose other shaders and other ways to copy for such a driver; with this layer
 * they do on the bare driver too, and what is left of a difference is Hesper's.
 *
 * GUEST_VIEW_WRITE=FILE notes what the first physical device shows, GUEST_VIEW_READ=FILE shows no
 * more than FILE says.  Whatever is wrong ends the program: a measurement must not go on without.
 *
 * Source: the Vulkan loader's documentation, LoaderLayerInterface.md. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vulkan_core.h"

#define EXPORT __attribute__((visibility("default")))

/* What passes between the loader and its layers. */
enum { LAYER_LINK_INFO = 0 };

typedef struct Link {
    struct Link *next;
    PFN_vkGetInstanceProcAddr get_instance_function;
    PFN_vkVoidFunction get_physical_device_function;
} Link;

typedef struct {
    VkStructureType type;
    const void *next;
    int function;
    Link *link;
} LayerInstanceInfo;

typedef struct {
    int type;
    void *next;
    uint32_t version;
    PFN_vkGetInstanceProcAddr get_instance_function;
    PFN_vkGetDeviceProcAddr get_device_function;
    PFN_vkVoidFunction get_physical_device_function;
} Negotiation;

#define MOST_EXTENSIONS 512

static struct {
    PFN_vkGetInstanceProcAddr get;
    PFN_vkEnumerateDeviceExtensionProperties extensions;
    PFN_vkGetPhysicalDeviceProperties2 properties;
    PFN_vkGetPhysicalDeviceMemoryProperties memory;
    PFN_vkGetPhysicalDeviceMemoryProperties2 memory2;
} below;

/* What a guest sees; `is_known` where GUEST_VIEW_READ has named a file. */
static struct {
    bool is_known;
    char extensions[MOST_EXTENSIONS][VK_MAX_EXTENSION_NAME_SIZE];
    uint32_t extension_count;
    VkMemoryPropertyFlags flags[VK_MAX_MEMORY_TYPES];
    uint32_t type_count;
    VkPhysicalDeviceDriverProperties driver;
} view;

static void fail(const char *what, const char *name) {
    fprintf(stderr, "guest_view: %s %s\n", what, name);
    exit(1);
}

static void read_view(const char *path) {
    FILE *file = fopen(path, "r");
    char line[VK_MAX_DRIVER_INFO_SIZE + 32];
    if (!file)
        fail("cannot read", path);
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, ' ');
        line[strcspn(line, "\n")] = 0;
        if (!value++)
            fail("no line of a view:", line);
        if (!strncmp(line, "extension ", 10) && view.extension_count < MOST_EXTENSIONS)
            snprintf(view.extensions[view.extension_count++], VK_MAX_EXTENSION_NAME_SIZE, "%s", value);
        else if (!strncmp(line, "memory ", 7) && view.type_count < VK_MAX_MEMORY_TYPES)
            view.flags[view.type_count++] = (VkMemoryPropertyFlags)strtoul(value, NULL, 16);
        else if (!strncmp(line, "driver-id ", 10))
            view.driver.driverID = (VkDriverId)strtoul(value, NULL, 10);
        else if (!strncmp(line, "driver-name ", 12))
            snprintf(view.driver.driverName, sizeof view.driver.driverName, "%s", value);
        else if (!strncmp(line, "driver-info ", 12))
            snprintf(view.driver.driverInfo, sizeof view.driver.driverInfo, "%s", value);
        else
            fail("no line of a view:", line);
    }
    fclose(file);
    view.is_known = true;
}

static bool is_shown(const char *name) {
    for (uint32_t i = 0; i < view.extension_count; i++)
        if (!strcmp(view.extensions[i], name))
            return true;
    return false;
}

static void write_view(const char *path, VkPhysicalDevice device) {
    static VkExtensionProperties found[MOST_EXTENSIONS];
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &driver};
    VkPhysicalDeviceMemoryProperties memory;
    uint32_t count = MOST_EXTENSIONS;
    FILE *file = fopen(path, "w");
    if (!file)
        fail("cannot write", path);
    if (below.extensions(device, NULL, &count, found) != VK_SUCCESS)
        fail("cannot list the extensions of", "the device");
    below.properties(device, &properties);
    below.memory(device, &memory);
    for (uint32_t i = 0; i < count; i++)
        fprintf(file, "extension %s\n", found[i].extensionName);
    for (uint32_t i = 0; i < memory.memoryTypeCount; i++)
        fprintf(file, "memory %x\n", memory.memoryTypes[i].propertyFlags);
    fprintf(file, "driver-id %d\ndriver-name %s\n", driver.driverID, driver.driverName);
    fprintf(file, "driver-info %s\n", driver.driverInfo);
    fclose(file);
}

static VKAPI_ATTR VkResult VKAPI_CALL enumerate_extensions(
    VkPhysicalDevice device, const char *layer, uint32_t *count, VkExtensionProperties *properties) {
    static VkExtensionProperties found[MOST_EXTENSIONS];
    uint32_t all = MOST_EXTENSIONS, shown = 0;
    if (layer || !view.is_known)
        return below.extensions(device, layer, count, properties);
    VkResult result = below.extensions(device, NULL, &all, found);
    if (result != VK_SUCCESS)
        return result;
    for (uint32_t i = 0; i < all; i++)
        if (is_shown(found[i].extensionName))
            found[shown++] = found[i];
    if (!properties) {
        *count = shown;
        return VK_SUCCESS;
    }
    if (*count > shown)
        *count = shown;
    memcpy(properties, found, *count * sizeof *found);
    return *count < shown ? VK_INCOMPLETE : VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL get_properties(
    VkPhysicalDevice device, VkPhysicalDeviceProperties2 *properties) {
    below.properties(device, properties);
    for (VkBaseOutStructure *next = view.is_known ? properties->pNext : NULL; next; next = next->pNext) {
        VkDriverId *id = NULL;
        char *name = NULL, *info = NULL;
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES) {
            VkPhysicalDeviceDriverProperties *driver = (void *)next;
            id = &driver->driverID, name = driver->driverName, info = driver->driverInfo;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES) {
            VkPhysicalDeviceVulkan12Properties *driver = (void *)next;
            id = &driver->driverID, name = driver->driverName, info = driver->driverInfo;
        } else
            continue;
        *id = view.driver.driverID;
        memcpy(name, view.driver.driverName, VK_MAX_DRIVER_NAME_SIZE);
        memcpy(info, view.driver.driverInfo, VK_MAX_DRIVER_INFO_SIZE);
    }
}

static void hide_flags(VkPhysicalDeviceMemoryProperties *memory) {
    for (uint32_t i = 0; view.is_known && i < memory->memoryTypeCount; i++)
        memory->memoryTypes[i].propertyFlags = i < view.type_count ? view.flags[i] : 0;
}

static VKAPI_ATTR void VKAPI_CALL get_memory(
    VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties *memory) {
    below.memory(device, memory);
    hide_flags(memory);
}

static VKAPI_ATTR void VKAPI_CALL get_memory2(
    VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties2 *memory) {
    below.memory2(device, memory);
    hide_flags(&memory->memoryProperties);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(
    const VkInstanceCreateInfo *info, const VkAllocationCallbacks *allocator, VkInstance *instance) {
    const char *to_read = getenv("GUEST_VIEW_READ"), *to_write = getenv("GUEST_VIEW_WRITE");
    LayerInstanceInfo *mine = (LayerInstanceInfo *)info->pNext;
    while (mine && !(mine->type == VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO &&
                     mine->function == LAYER_LINK_INFO))
        mine = (LayerInstanceInfo *)mine->next;
    if (!mine)
        return VK_ERROR_INITIALIZATION_FAILED;
    below.get = mine->link->get_instance_function;
    mine->link = mine->link->next;
    PFN_vkCreateInstance create = (PFN_vkCreateInstance)below.get(NULL, "vkCreateInstance");
    VkResult result = create(info, allocator, instance);
    if (result != VK_SUCCESS)
        return result;
    below.extensions = (PFN_vkEnumerateDeviceExtensionProperties)below.get(
        *instance, "vkEnumerateDeviceExtensionProperties");
    below.properties = (PFN_vkGetPhysicalDeviceProperties2)below.get(
        *instance, "vkGetPhysicalDeviceProperties2");
    below.memory = (PFN_vkGetPhysicalDeviceMemoryProperties)below.get(
        *instance, "vkGetPhysicalDeviceMemoryProperties");
    below.memory2 = (PFN_vkGetPhysicalDeviceMemoryProperties2)below.get(
        *instance, "vkGetPhysicalDeviceMemoryProperties2");
    if (to_read && !view.is_known)
        read_view(to_read);
    if (to_write) {
        PFN_vkEnumeratePhysicalDevices enumerate =
            (PFN_vkEnumeratePhysicalDevices)below.get(*instance, "vkEnumeratePhysicalDevices");
        VkPhysicalDevice device;
        uint32_t count = 1;
        if (enumerate(*instance, &count, &device) < 0 || !count)
            fail("found no", "device");
        write_view(to_write, device);
    }
    return result;
}

static PFN_vkVoidFunction VKAPI_CALL get_instance_function(VkInstance instance, const char *name) {
    static const struct {
        const char *name;
        PFN_vkVoidFunction function;
    } ours[] = {
        {"vkGetInstanceProcAddr", (PFN_vkVoidFunction)get_instance_function},
        {"vkCreateInstance", (PFN_vkVoidFunction)create_instance},
        {"vkEnumerateDeviceExtensionProperties", (PFN_vkVoidFunction)enumerate_extensions},
        {"vkGetPhysicalDeviceProperties2", (PFN_vkVoidFunction)get_properties},
        {"vkGetPhysicalDeviceProperties2KHR", (PFN_vkVoidFunction)get_properties},
        {"vkGetPhysicalDeviceMemoryProperties", (PFN_vkVoidFunction)get_memory},
        {"vkGetPhysicalDeviceMemoryProperties2", (PFN_vkVoidFunction)get_memory2},
        {"vkGetPhysicalDeviceMemoryProperties2KHR", (PFN_vkVoidFunction)get_memory2},
    };
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!strcmp(name, ours[i].name))
            return ours[i].function;
    return below.get ? below.get(instance, name) : NULL;
}

EXPORT VkResult vkNegotiateLoaderLayerInterfaceVersion(Negotiation *negotiation);

VkResult vkNegotiateLoaderLayerInterfaceVersion(Negotiation *negotiation) {
    if (negotiation->version < 2)
        return VK_ERROR_INITIALIZATION_FAILED;
    negotiation->version = 2;
    negotiation->get_instance_function = get_instance_function;
    negotiation->get_device_function = NULL;
    negotiation->get_physical_device_function = NULL;
    return VK_SUCCESS;
}
