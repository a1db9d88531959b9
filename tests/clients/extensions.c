/* Makes a device with each extension that the driver offers, enabled alone, and one with all of them.
 *
 *   extensions
 *
 * Prints "NAME RESULT" a line: a VkResult, 0 where the device was made; "all" for all at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <vulkan/vulkan.h>

static VkPhysicalDevice physical;

static void fail(const char *what, VkResult result)
{
   fprintf(stderr, "%s: VkResult %d\n", what, result);
   exit(1);
}

static VkResult make_device(uint32_t count, const char *const *names)
{
   const float priority = 1;
   const VkDeviceQueueCreateInfo queue = {
      .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
      .queueCount = 1,
      .pQueuePriorities = &priority,
   };
   const VkDeviceCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
      .queueCreateInfoCount = 1,
      .pQueueCreateInfos = &queue,
      .enabledExtensionCount = count,
      .ppEnabledExtensionNames = names,
   };
   VkDevice device;
   const VkResult result = vkCreateDevice(physical, &info, NULL, &device);
   if (result == VK_SUCCESS)
      vkDestroyDevice(device, NULL);
   return result;
}

int main(void)
{
   const VkApplicationInfo application = {
      .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
      .apiVersion = VK_API_VERSION_1_3,
   };
   const VkInstanceCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
      .pApplicationInfo = &application,
   };
   VkInstance instance;
   VkResult result = vkCreateInstance(&info, NULL, &instance);
   if (result != VK_SUCCESS)
      fail("vkCreateInstance", result);
   uint32_t count = 1;
   result = vkEnumeratePhysicalDevices(instance, &count, &physical);
   if (result < VK_SUCCESS || !count)
      fail("vkEnumeratePhysicalDevices", result);

   result = vkEnumerateDeviceExtensionProperties(physical, NULL, &count, NULL);
   if (result != VK_SUCCESS)
      fail("vkEnumerateDeviceExtensionProperties", result);
   VkExtensionProperties *offered = calloc(count, sizeof(*offered));
   const char **names = calloc(count, sizeof(*names));
   if (!offered || !names)
      fail("calloc", VK_ERROR_OUT_OF_HOST_MEMORY);
   vkEnumerateDeviceExtensionProperties(physical, NULL, &count, offered);
   for (uint32_t i = 0; i < count; i++) {
      names[i] = offered[i].extensionName;
      printf("%s %d\n", names[i], make_device(1, &names[i]));
   }
   printf("all %d\n", make_device(count, names));
   vkDestroyInstance(instance, NULL);
   free(names);
   free(offered);
   return 0;
}
