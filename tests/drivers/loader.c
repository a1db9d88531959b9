/* The entry points of the Vulkan loader; lavapipe; and who answers for a command. */
#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct real real;

static PFN_vkGetInstanceProcAddr lavapipe;
static PFN_vkGetInstanceProcAddr lavapipe_physical; /* vk_icdGetPhysicalDeviceProcAddr */
static VkResult(VKAPI_PTR *negotiate)(uint32_t *);
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_lavapipe(void) {
    Dl_info here;
    char path[600];
    if (!dladdr((void *)open_lavapipe, &here))
        broken("of this driver", "it does not find itself");
    const char *slash = strrchr(here.dli_fname, '/');
    int folder = slash ? (int)(slash - here.dli_fname) : 1;
    snprintf(path, sizeof path, "%.*s/control", folder, slash ? here.dli_fname : ".");
    open_control(path);
    void *library = dlopen(lavapipe_path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        broken("of this driver", "%s", dlerror());
    *(void **)&lavapipe = dlsym(library, "vk_icdGetInstanceProcAddr");
    *(void **)&lavapipe_physical = dlsym(library, "vk_icdGetPhysicalDeviceProcAddr");
    *(void **)&negotiate = dlsym(library, "vk_icdNegotiateLoaderICDInterfaceVersion");
    if (!lavapipe || !lavapipe_physical || !negotiate)
        broken("of this driver", "%s is no Vulkan driver", lavapipe_path);
}

static void load_real(VkInstance instance) {
    /* The trampolines that are meant for any device. */
#define X(name) real.name = (PFN_##name)lavapipe(instance, #name);
    REAL_COMMANDS(X)
#undef X
    real.push_set =
        (PFN_vkCmdPushDescriptorSetKHR)lavapipe(instance, "vkCmdPushDescriptorSetKHR");
    real.push_set2 = (push_set2)lavapipe(instance, "vkCmdPushDescriptorSet2KHR");
    real.vkMapMemory2 = (map_memory2)lavapipe(instance, "vkMapMemory2KHR");
}

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                                      const VkAllocationCallbacks *allocator,
                                                      VkInstance *instance) {
    /* The overrides call commands of Vulkan 1.3, whatever the program asks for. */
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO};
    VkInstanceCreateInfo copy = *info;
    if (info->pApplicationInfo)
        application = *info->pApplicationInfo;
    if (application.apiVersion < VK_API_VERSION_1_3)
        application.apiVersion = VK_API_VERSION_1_3;
    copy.pApplicationInfo = &application;
    PFN_vkCreateInstance create = (PFN_vkCreateInstance)lavapipe(NULL, "vkCreateInstance");
    VkResult result = create(&copy, allocator, instance);
    if (result == VK_SUCCESS)
        load_real(*instance);
    return result;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_proc(VkDevice device,
                                                                const char *name);

static const struct override loader_overrides[] = {
    OVERRIDE("vkCreateInstance", create_instance),
    {NULL, NULL},
};

static PFN_vkVoidFunction search(const struct override *list, const char *name) {
    for (; list->name; list++)
        if (strcmp(list->name, name) == 0)
            return list->function;
    return NULL;
}

/* Who answers for `name`, which lavapipe answers with `function`. */
static PFN_vkVoidFunction answer(const char *name, PFN_vkVoidFunction function) {
    static const struct override *const always[] = {loader_overrides, device_overrides};
    static const struct override *const rules[] = {physical_overrides, format_overrides,
                                                   memory_overrides, resource_overrides,
                                                   view_overrides,   null_overrides};
    PFN_vkVoidFunction found = NULL;
    for (size_t i = 0; i < COUNT(always) && !found; i++)
        found = search(always[i], name);
    for (size_t i = 0; i < COUNT(rules) && !found && mode->kind != PLAIN; i++)
        found = search(rules[i], name);
    /* What lavapipe does not have the mode may add: descriptors, in a lavapipe without them. */
    if (!function && !(found && mode->exported_types && strstr(name, "MemoryFd")))
        return NULL;
    return with_faults(name, found ? found : function);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_proc(VkDevice device,
                                                                const char *name) {
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        return (PFN_vkVoidFunction)get_device_proc;
    return answer(name, real.vkGetDeviceProcAddr(device, name));
}

EXPORTED VKAPI_ATTR VkResult VKAPI_CALL vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
    pthread_once(&once, open_lavapipe);
    return negotiate(version);
}

EXPORTED VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL
vk_icdGetPhysicalDeviceProcAddr(VkInstance instance, const char *name) {
    pthread_once(&once, open_lavapipe);
    return answer(name, lavapipe_physical(instance, name));
}

EXPORTED VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vk_icdGetInstanceProcAddr(VkInstance instance,
                                                                            const char *name) {
    pthread_once(&once, open_lavapipe);
    static const struct override own[] = {
        OVERRIDE("vkGetInstanceProcAddr", vk_icdGetInstanceProcAddr),
        OVERRIDE("vk_icdGetInstanceProcAddr", vk_icdGetInstanceProcAddr),
        OVERRIDE("vk_icdGetPhysicalDeviceProcAddr", vk_icdGetPhysicalDeviceProcAddr),
        OVERRIDE("vk_icdNegotiateLoaderICDInterfaceVersion",
                 vk_icdNegotiateLoaderICDInterfaceVersion),
        OVERRIDE("vkGetDeviceProcAddr", get_device_proc),
        {NULL, NULL},
    };
    PFN_vkVoidFunction found = search(own, name);
    return found ? found : answer(name, lavapipe(instance, name));
}
