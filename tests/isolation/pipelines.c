/* A Vulkan client with many threads that each make a pipeline, all of them at the same time.
 *
 *   pipelines THREADS
 *
 * Mesa gives each such thread a ring of its own, which lives as long as the thread.  Prints how many
 * pipelines there were; exit status 0 when that is one a thread.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <vulkan/vulkan.h>

/* A compute shader that does nothing: `void main() {}`, one invocation. */
static const uint32_t shader[] = {
   0x07230203, 0x00010000, 0, 5, 0,    /* magic, version 1.0, generator, bound, schema */
   2 << 16 | 17, 1,                    /* OpCapability Shader */
   3 << 16 | 14, 0, 1,                 /* OpMemoryModel Logical GLSL450 */
   5 << 16 | 15, 5, 1, 0x6e69616d, 0,  /* OpEntryPoint GLCompute %1 "main" */
   6 << 16 | 16, 1, 17, 1, 1, 1,       /* OpExecutionMode %1 LocalSize 1 1 1 */
   2 << 16 | 19, 2,                    /* %2 = OpTypeVoid */
   3 << 16 | 33, 3, 2,                 /* %3 = OpTypeFunction %2 */
   5 << 16 | 54, 2, 1, 0, 3,           /* %1 = OpFunction %2 None %3 */
   2 << 16 | 248, 4,                   /* %4 = OpLabel */
   1 << 16 | 253,                      /* OpReturn */
   1 << 16 | 56,                       /* OpFunctionEnd */
};

static VkDevice device;
static VkShaderModule module;
static VkPipelineLayout layout;
static pthread_barrier_t barrier;

static void check(VkResult result, const char *what)
{
   if (result != VK_SUCCESS) {
      fprintf(stderr, "%s: VkResult %d\n", what, result);
      exit(1);
   }
}
#define CALL(function, ...) check(function(__VA_ARGS__), #function)

static void *work(void *argument)
{
   VkComputePipelineCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
      .stage = {
         .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
         .stage = VK_SHADER_STAGE_COMPUTE_BIT,
         .module = module,
         .pName = "main",
      },
      .layout = layout,
   };
   VkPipeline *pipeline = argument;
   pthread_barrier_wait(&barrier);
   CALL(vkCreateComputePipelines, device, VK_NULL_HANDLE, 1, &info, NULL, pipeline);
   /* No thread ends, and with it its ring, before all have one. */
   pthread_barrier_wait(&barrier);
   return NULL;
}

int main(int argc, char **argv)
{
   const unsigned threads = argc == 2 ? atoi(argv[1]) : 0;
   VkApplicationInfo application = {
      .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
      .apiVersion = VK_API_VERSION_1_1,
   };
   VkInstanceCreateInfo instance_info = {
      .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
      .pApplicationInfo = &application,
   };
   VkInstance instance;
   CALL(vkCreateInstance, &instance_info, NULL, &instance);
   VkPhysicalDevice physical;
   uint32_t count = 1;
   vkEnumeratePhysicalDevices(instance, &count, &physical);
   VkDeviceQueueCreateInfo queue_info = {
      .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
      .queueCount = 1,
      .pQueuePriorities = &(float){1},
   };
   VkDeviceCreateInfo device_info = {
      .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
      .queueCreateInfoCount = 1,
      .pQueueCreateInfos = &queue_info,
   };
   CALL(vkCreateDevice, physical, &device_info, NULL, &device);
   VkShaderModuleCreateInfo module_info = {
      .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
      .codeSize = sizeof(shader),
      .pCode = shader,
   };
   CALL(vkCreateShaderModule, device, &module_info, NULL, &module);
   VkPipelineLayoutCreateInfo layout_info = {
      .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
   };
   CALL(vkCreatePipelineLayout, device, &layout_info, NULL, &layout);

   pthread_t *thread = calloc(threads, sizeof(*thread));
   VkPipeline *pipeline = calloc(threads, sizeof(*pipeline));
   pthread_barrier_init(&barrier, NULL, threads);
   for (unsigned i = 0; i < threads; i++)
      if (pthread_create(&thread[i], NULL, work, &pipeline[i])) {
         fputs("no thread\n", stderr);
         return 1;
      }
   unsigned made = 0;
   for (unsigned i = 0; i < threads; i++) {
      pthread_join(thread[i], NULL);
      made += pipeline[i] != VK_NULL_HANDLE;
      vkDestroyPipeline(device, pipeline[i], NULL);
   }
   printf("%u pipelines\n", made);
   vkDestroyPipelineLayout(device, layout, NULL);
   vkDestroyShaderModule(device, module, NULL);
   vkDestroyDevice(device, NULL);
   vkDestroyInstance(instance, NULL);
   return made != threads;
}
