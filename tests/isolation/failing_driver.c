/* A Vulkan driver that is the one named by HESPER_TEST_DRIVER until a file in the folder HESPER_TEST_FAULTS says so:
 *   refuse    vkCreateInstance answers VK_ERROR_INCOMPATIBLE_DRIVER
 *   abort     vkCreateInstance aborts, for applications with a name: a worker that tries the driver has none
 *   device    vkCreateDevice answers VK_ERROR_FEATURE_NOT_PRESENT
 *   crash     vkCmdFillBuffer reads from nowhere
 *   memory    vkCreateFence answers VK_ERROR_OUT_OF_DEVICE_MEMORY
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

typedef PFN_vkVoidFunction (*Get)(VkInstance, const char *);

static Get real_get;
static VkInstance instance;

static Get symbol(const char *name)
{
   return (Get)dlsym(dlopen(getenv("HESPER_TEST_DRIVER"), RTLD_NOW), name);
}

static PFN_vkVoidFunction real(const char *name)
{
   if (!real_get)
      real_get = symbol("vk_icdGetInstanceProcAddr");
   return real_get(instance, name);
}

static int is_wanted(const char *fault)
{
   char path[4096];
   snprintf(path, sizeof(path), "%s/%s", getenv("HESPER_TEST_FAULTS"), fault);
   return access(path, F_OK) == 0;
}

static VkResult create_instance(const VkInstanceCreateInfo *info,
                                const VkAllocationCallbacks *allocator, VkInstance *made)
{
   if (is_wanted("abort") && info->pApplicationInfo && info->pApplicationInfo->pApplicationName)
      abort();
   if (is_wanted("refuse"))
      return VK_ERROR_INCOMPATIBLE_DRIVER;
   VkResult result = ((PFN_vkCreateInstance)real("vkCreateInstance"))(info, allocator, made);
   instance = *made;
   return result;
}

static VkResult create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                              const VkAllocationCallbacks *allocator, VkDevice *made)
{
   if (is_wanted("device"))
      return VK_ERROR_FEATURE_NOT_PRESENT;
   return ((PFN_vkCreateDevice)real("vkCreateDevice"))(physical, info, allocator, made);
}

static VkResult create_fence(VkDevice device, const VkFenceCreateInfo *info,
                             const VkAllocationCallbacks *allocator, VkFence *made)
{
   if (is_wanted("memory"))
      return VK_ERROR_OUT_OF_DEVICE_MEMORY;
   return ((PFN_vkCreateFence)real("vkCreateFence"))(device, info, allocator, made);
}

static void fill_buffer(VkCommandBuffer commands, VkBuffer buffer, VkDeviceSize offset,
                        VkDeviceSize size, uint32_t data)
{
   if (is_wanted("crash"))
      *(volatile int *)0;
   ((PFN_vkCmdFillBuffer)real("vkCmdFillBuffer"))(commands, buffer, offset, size, data);
}

static PFN_vkVoidFunction of_device(VkDevice device, const char *name)
{
   if (!strcmp(name, "vkCmdFillBuffer"))
      return (PFN_vkVoidFunction)fill_buffer;
   if (!strcmp(name, "vkCreateFence"))
      return (PFN_vkVoidFunction)create_fence;
   if (!strcmp(name, "vkGetDeviceProcAddr"))
      return (PFN_vkVoidFunction)of_device;
   return ((PFN_vkGetDeviceProcAddr)real("vkGetDeviceProcAddr"))(device, name);
}

PFN_vkVoidFunction vk_icdGetInstanceProcAddr(VkInstance of, const char *name)
{
   if (of)
      instance = of;
   if (!strcmp(name, "vkCreateInstance"))
      return (PFN_vkVoidFunction)create_instance;
   if (!strcmp(name, "vkCreateDevice"))
      return (PFN_vkVoidFunction)create_device;
   if (!strcmp(name, "vkGetDeviceProcAddr"))
      return (PFN_vkVoidFunction)of_device;
   if (!strcmp(name, "vkCmdFillBuffer"))
      return (PFN_vkVoidFunction)fill_buffer;
   if (!strcmp(name, "vkCreateFence"))
      return (PFN_vkVoidFunction)create_fence;
   return real(name);
}

PFN_vkVoidFunction vk_icdGetPhysicalDeviceProcAddr(VkInstance of, const char *name)
{
   return symbol("vk_icdGetPhysicalDeviceProcAddr")(of, name);
}

VkResult vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version)
{
   if (*version > 5)
      *version = 5;
   return VK_SUCCESS;
}
