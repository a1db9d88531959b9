/* lavapipe in the clothes of a Mac's driver, for the choice between drivers.
 *
 * -DNAME="..."     what the device calls itself; it says that it is an integrated GPU
 * -DSUBSET         it offers VK_KHR_portability_subset, and no VK_EXT_robustness2
 * -DNO_HOST_MEMORY it lacks VK_EXT_external_memory_host
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

typedef PFN_vkVoidFunction (*Get)(VkInstance, const char *);

static VkInstance instance;

static Get symbol(const char *name)
{
   return (Get)dlsym(dlopen(LAVAPIPE, RTLD_NOW), name);
}

static PFN_vkVoidFunction real(const char *name)
{
   return symbol("vk_icdGetInstanceProcAddr")(instance, name);
}

static void dress(VkPhysicalDeviceProperties *properties)
{
   properties->deviceType = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
   strcpy(properties->deviceName, NAME);
}

static void get_properties(VkPhysicalDevice device, VkPhysicalDeviceProperties *properties)
{
   ((PFN_vkGetPhysicalDeviceProperties)real("vkGetPhysicalDeviceProperties"))(device, properties);
   dress(properties);
}

static void get_properties_2(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *properties)
{
   PFN_vkGetPhysicalDeviceProperties2 get =
      (PFN_vkGetPhysicalDeviceProperties2)real("vkGetPhysicalDeviceProperties2");
   get(device, properties);
   dress(&properties->properties);
}

static int is_hidden(const char *name)
{
#ifdef SUBSET
   if (!strcmp(name, "VK_EXT_robustness2") || !strcmp(name, "VK_KHR_robustness2"))
      return 1;
#endif
#ifdef NO_HOST_MEMORY
   if (!strcmp(name, "VK_EXT_external_memory_host"))
      return 1;
#endif
   return 0;
}

static VkResult enumerate_extensions(VkPhysicalDevice device, const char *layer, uint32_t *count,
                                     VkExtensionProperties *properties)
{
   VkExtensionProperties all[1024];
   uint32_t there = 1023, kept = 0;
   PFN_vkEnumerateDeviceExtensionProperties get =
      (PFN_vkEnumerateDeviceExtensionProperties)real("vkEnumerateDeviceExtensionProperties");
   get(device, layer, &there, all);
#ifdef SUBSET
   strcpy(all[there].extensionName, "VK_KHR_portability_subset");
   all[there++].specVersion = 1;
#endif
   for (uint32_t i = 0; i < there; i++)
      if (!is_hidden(all[i].extensionName) && (!properties || kept < *count)) {
         if (properties)
            properties[kept] = all[i];
         kept++;
      }
   *count = kept;
   return VK_SUCCESS;
}

static VkResult create_instance(const VkInstanceCreateInfo *info,
                                const VkAllocationCallbacks *allocator, VkInstance *made)
{
   VkResult result = ((PFN_vkCreateInstance)real("vkCreateInstance"))(info, allocator, made);
   instance = *made;
   return result;
}

/* lavapipe knows no portability subset, which has to be enabled where it is offered. */
static VkResult create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                              const VkAllocationCallbacks *allocator, VkDevice *made)
{
   const char *names[64];
   VkDeviceCreateInfo copy = *info;
   copy.ppEnabledExtensionNames = names;
   copy.enabledExtensionCount = 0;
   for (uint32_t i = 0; i < info->enabledExtensionCount && i < 64; i++)
      if (strcmp(info->ppEnabledExtensionNames[i], "VK_KHR_portability_subset"))
         names[copy.enabledExtensionCount++] = info->ppEnabledExtensionNames[i];
   return ((PFN_vkCreateDevice)real("vkCreateDevice"))(physical, &copy, allocator, made);
}

PFN_vkVoidFunction vk_icdGetInstanceProcAddr(VkInstance of, const char *name)
{
   if (!strcmp(name, "vkCreateInstance"))
      return (PFN_vkVoidFunction)create_instance;
   if (!strcmp(name, "vkGetPhysicalDeviceProperties"))
      return (PFN_vkVoidFunction)get_properties;
   if (!strncmp(name, "vkGetPhysicalDeviceProperties2", 30))
      return (PFN_vkVoidFunction)get_properties_2;
   if (!strcmp(name, "vkCreateDevice"))
      return (PFN_vkVoidFunction)create_device;
   if (!strcmp(name, "vkEnumerateDeviceExtensionProperties"))
      return (PFN_vkVoidFunction)enumerate_extensions;
   return symbol("vk_icdGetInstanceProcAddr")(of, name);
}

PFN_vkVoidFunction vk_icdGetPhysicalDeviceProcAddr(VkInstance of, const char *name)
{
   (void)of;
   (void)name;
   return NULL;
}

VkResult vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version)
{
   if (*version > 5)
      *version = 5;
   return VK_SUCCESS;
}
