/* A Vulkan client with several threads that record, submit, wait and check, without shaders.
 *
 *   stress THREADS ROUNDS     ROUNDS 0: until killed
 *
 * Each thread has a command pool and a mapped buffer of its own.  In a round it fills every word of
 * the buffer by a command of its own and then reads them all.  Prints "streaming" after the first
 * round of the first thread, and what is wrong.  Exit status 0 when every word was right.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <vulkan/vulkan.h>

enum { WORDS = 2000, MAX_THREADS = 16 };

static VkDevice device;
static VkPhysicalDevice physical;
static VkQueue queue;
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long rounds;

static void fail(const char *format, ...)
{
   va_list arguments;
   va_start(arguments, format);
   vfprintf(stderr, format, arguments);
   va_end(arguments);
   fputc('\n', stderr);
   exit(1);
}

static void check(VkResult result, const char *what)
{
   if (result != VK_SUCCESS)
      fail("%s: VkResult %d", what, result);
}
#define CALL(function, ...) check(function(__VA_ARGS__), #function)

static uint32_t memory_type(uint32_t allowed)
{
   const VkMemoryPropertyFlags wanted =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
   VkPhysicalDeviceMemoryProperties memory;
   vkGetPhysicalDeviceMemoryProperties(physical, &memory);
   for (uint32_t i = 0; i < memory.memoryTypeCount; i++)
      if (allowed >> i & 1 && (memory.memoryTypes[i].propertyFlags & wanted) == wanted)
         return i;
   fail("no mappable memory");
   return 0;
}

static void *work(void *argument)
{
   const uint32_t number = (uint32_t)(uintptr_t)argument;
   VkBuffer buffer;
   VkBufferCreateInfo buffer_info = {
      .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
      .size = WORDS * 4,
      .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT,
   };
   CALL(vkCreateBuffer, device, &buffer_info, NULL, &buffer);
   VkMemoryRequirements needs;
   vkGetBufferMemoryRequirements(device, buffer, &needs);
   VkDeviceMemory memory;
   VkMemoryAllocateInfo memory_info = {
      .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
      .allocationSize = needs.size,
      .memoryTypeIndex = memory_type(needs.memoryTypeBits),
   };
   CALL(vkAllocateMemory, device, &memory_info, NULL, &memory);
   CALL(vkBindBufferMemory, device, buffer, memory, 0);
   volatile uint32_t *words;
   CALL(vkMapMemory, device, memory, 0, VK_WHOLE_SIZE, 0, (void **)&words);

   VkCommandPool pool;
   VkCommandPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
   CALL(vkCreateCommandPool, device, &pool_info, NULL, &pool);
   VkFence fence;
   VkFenceCreateInfo fence_info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
   CALL(vkCreateFence, device, &fence_info, NULL, &fence);

   for (unsigned long round = 0; !rounds || round < rounds; round++) {
      VkCommandBuffer commands;
      VkCommandBufferAllocateInfo allocate_info = {
         .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
         .commandPool = pool,
         .commandBufferCount = 1,
      };
      CALL(vkAllocateCommandBuffers, device, &allocate_info, &commands);
      VkCommandBufferBeginInfo begin_info = {
         .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
      };
      const uint32_t seed = number << 28 ^ (uint32_t)round << 12;
      CALL(vkBeginCommandBuffer, commands, &begin_info);
      for (uint32_t i = 0; i < WORDS; i++)
         vkCmdFillBuffer(commands, buffer, i * 4, 4, seed + i);
      CALL(vkEndCommandBuffer, commands);
      VkSubmitInfo submit_info = {
         .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
         .commandBufferCount = 1,
         .pCommandBuffers = &commands,
      };
      pthread_mutex_lock(&queue_lock);
      CALL(vkQueueSubmit, queue, 1, &submit_info, fence);
      pthread_mutex_unlock(&queue_lock);
      CALL(vkWaitForFences, device, 1, &fence, VK_TRUE, UINT64_MAX);
      CALL(vkResetFences, device, 1, &fence);
      for (uint32_t i = 0; i < WORDS; i++)
         if (words[i] != seed + i)
            fail("thread %u, round %lu, word %u: %#x, must be %#x", number, round, i, words[i],
                 seed + i);
      vkFreeCommandBuffers(device, pool, 1, &commands);
      if (!number && !round) {
         puts("streaming");
         fflush(stdout);
      }
   }

   vkDestroyFence(device, fence, NULL);
   vkDestroyCommandPool(device, pool, NULL);
   vkDestroyBuffer(device, buffer, NULL);
   vkFreeMemory(device, memory, NULL);
   return NULL;
}

int main(int argc, char **argv)
{
   const unsigned long threads = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
   if (threads < 1 || threads > MAX_THREADS)
      fail("usage: stress THREADS ROUNDS");
   rounds = strtoul(argv[2], NULL, 10);

   VkInstance instance;
   VkApplicationInfo application = {
      .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
      .pApplicationName = "stress",
      .apiVersion = VK_API_VERSION_1_1,
   };
   VkInstanceCreateInfo instance_info = {
      .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
      .pApplicationInfo = &application,
   };
   CALL(vkCreateInstance, &instance_info, NULL, &instance);
   uint32_t count = 1;
   VkResult result = vkEnumeratePhysicalDevices(instance, &count, &physical);
   if (result < 0 || count < 1)
      fail("no physical device: VkResult %d", result);
   const float priority = 1.0f;
   VkDeviceQueueCreateInfo queue_info = {
      .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
      .queueCount = 1,
      .pQueuePriorities = &priority,
   };
   VkDeviceCreateInfo device_info = {
      .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
      .queueCreateInfoCount = 1,
      .pQueueCreateInfos = &queue_info,
   };
   CALL(vkCreateDevice, physical, &device_info, NULL, &device);
   vkGetDeviceQueue(device, 0, 0, &queue);

   pthread_t workers[MAX_THREADS];
   for (uintptr_t i = 0; i < threads; i++)
      if (pthread_create(&workers[i], NULL, work, (void *)i))
         fail("pthread_create");
   for (unsigned long i = 0; i < threads; i++)
      pthread_join(workers[i], NULL);
   vkDestroyDevice(device, NULL);
   vkDestroyInstance(instance, NULL);
   return 0;
}
