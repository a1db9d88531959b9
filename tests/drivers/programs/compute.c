/* Computes: every element of a mapped buffer times three plus a number that is pushed, some times over,
   each by a submission of its own.  The shader's words come from `transform.h`, which whoever compiles
   this makes.  Prints the last element. */
#include "program.h"

#include <stdint.h>

#include "transform.h"

#define ELEMENTS 4096
#define TIMES 5

static VkPipelineLayout layout;
static VkDescriptorSet set;

static void check_all(VkResult result, const char *what) {
    if (result == VK_SUCCESS)
        return;
    printf("%s: %d\n", what, result);
    exit(1);
}
#define CHECK(call) check_all(call, #call)

static uint32_t mappable(uint32_t types) {
    VkPhysicalDeviceMemoryProperties memory;
    VkFlags wanted = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    vkGetPhysicalDeviceMemoryProperties(physical, &memory);
    for (uint32_t i = 0; i < memory.memoryTypeCount; i++)
        if (types >> i & 1 && (memory.memoryTypes[i].propertyFlags & wanted) == wanted)
            return i;
    exit(1);
}

static uint32_t *make_buffer(VkBuffer *buffer) {
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = ELEMENTS * sizeof(uint32_t),
                               .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT};
    VkMemoryRequirements needs;
    VkDeviceMemory memory;
    void *mapped;
    CHECK(vkCreateBuffer(device, &info, NULL, buffer));
    vkGetBufferMemoryRequirements(device, *buffer, &needs);
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .allocationSize = needs.size,
                                     .memoryTypeIndex = mappable(needs.memoryTypeBits)};
    CHECK(vkAllocateMemory(device, &allocate, NULL, &memory));
    CHECK(vkBindBufferMemory(device, *buffer, memory, 0));
    CHECK(vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, &mapped));
    return mapped;
}

static VkPipeline make_pipeline(VkBuffer buffer) {
    VkDescriptorSetLayoutBinding binding = {.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                            .descriptorCount = 1,
                                            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkDescriptorSetLayoutCreateInfo of_set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = 1,
        .pBindings = &binding};
    VkDescriptorSetLayout sets;
    CHECK(vkCreateDescriptorSetLayout(device, &of_set, NULL, &sets));
    VkPushConstantRange pushed = {VK_SHADER_STAGE_COMPUTE_BIT, 0, 64};
    VkPipelineLayoutCreateInfo of_all = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                         .setLayoutCount = 1,
                                         .pSetLayouts = &sets,
                                         .pushConstantRangeCount = 1,
                                         .pPushConstantRanges = &pushed};
    CHECK(vkCreatePipelineLayout(device, &of_all, NULL, &layout));
    VkDescriptorPoolSize room = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1};
    VkDescriptorPoolCreateInfo of_pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                          .maxSets = 1,
                                          .poolSizeCount = 1,
                                          .pPoolSizes = &room};
    VkDescriptorPool pool;
    CHECK(vkCreateDescriptorPool(device, &of_pool, NULL, &pool));
    VkDescriptorSetAllocateInfo one = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                       .descriptorPool = pool,
                                       .descriptorSetCount = 1,
                                       .pSetLayouts = &sets};
    CHECK(vkAllocateDescriptorSets(device, &one, &set));
    VkDescriptorBufferInfo all = {buffer, 0, VK_WHOLE_SIZE};
    VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                  .dstSet = set,
                                  .descriptorCount = 1,
                                  .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  .pBufferInfo = &all};
    vkUpdateDescriptorSets(device, 1, &write, 0, NULL);
    VkShaderModuleCreateInfo code = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                     .codeSize = sizeof transform,
                                     .pCode = transform};
    VkShaderModule module;
    CHECK(vkCreateShaderModule(device, &code, NULL, &module));
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main"},
        .layout = layout};
    VkPipeline pipeline;
    CHECK(vkCreateComputePipelines(device, VK_NULL_HANDLE, 1, &info, NULL, &pipeline));
    vkDestroyShaderModule(device, module, NULL);
    return pipeline;
}

static void run(VkPipeline pipeline, VkCommandBuffer commands, VkFence fence, uint32_t added) {
    uint32_t pushed[16] = {added};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    CHECK(vkBeginCommandBuffer(commands, &begin));
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &set, 0, NULL);
    vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof pushed, pushed);
    vkCmdDispatch(commands, ELEMENTS / 64, 1, 1);
    CHECK(vkEndCommandBuffer(commands));
    VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                           .commandBufferCount = 1,
                           .pCommandBuffers = &commands};
    CHECK(vkQueueSubmit(queue, 1, &submit, fence));
    CHECK(vkWaitForFences(device, 1, &fence, VK_TRUE, UINT64_MAX));
    CHECK(vkResetFences(device, 1, &fence));
}

int main(void) {
    uint32_t families = 4;
    VkQueueFamilyProperties properties[4];
    VkBuffer buffer;
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkFence fence;
    open_device();
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &families, properties);
    uint32_t *elements = make_buffer(&buffer);
    VkPipeline pipeline = make_pipeline(buffer);
    VkCommandPoolCreateInfo of_pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = families - 1};
    CHECK(vkCreateCommandPool(device, &of_pool, NULL, &pool));
    VkCommandBufferAllocateInfo one = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                       .commandPool = pool,
                                       .commandBufferCount = 1};
    CHECK(vkAllocateCommandBuffers(device, &one, &commands));
    VkFenceCreateInfo of_fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    CHECK(vkCreateFence(device, &of_fence, NULL, &fence));
    for (uint32_t i = 0; i < ELEMENTS; i++)
        elements[i] = i;
    for (uint32_t time = 0; time < TIMES; time++)
        run(pipeline, commands, fence, time);
    for (uint32_t i = 0; i < ELEMENTS; i++) {
        uint32_t wanted = i;
        for (uint32_t time = 0; time < TIMES; time++)
            wanted = wanted * 3 + time;
        if (elements[i] != wanted) {
            printf("element %u is %u, not %u\n", i, elements[i], wanted);
            return 1;
        }
    }
    printf("%u\n", elements[ELEMENTS - 1]);
    vkDestroyDevice(device, NULL);
    vkDestroyInstance(instance, NULL);
    return 0;
}
