/* Computes, and checks that guest and host see the same memory.
 *
 * Prints "compute: HASH", the same on every driver, and "memory: ok" or what is wrong. */
#include "vulkan_program.h"

#include "collatz.h"

#define COUNT 65536

static void compute(struct gpu *gpu)
{
    uint32_t *numbers;
    VkBuffer buffer = host_buffer(gpu, COUNT * 4, (void **)&numbers);
    for (uint32_t i = 0; i < COUNT; i++)
        numbers[i] = i;
    VkDescriptorSetLayoutBinding binding = {.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                            .descriptorCount = 1,
                                            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkDescriptorSetLayoutCreateInfo set_create = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = 1,
        .pBindings = &binding};
    VkDescriptorSetLayout set_layout;
    CHECK(vkCreateDescriptorSetLayout(gpu->device, &set_create, NULL, &set_layout));
    VkPipelineLayoutCreateInfo layout_create = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &set_layout};
    VkPipelineLayout layout;
    CHECK(vkCreatePipelineLayout(gpu->device, &layout_create, NULL, &layout));
    VkComputePipelineCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = shader(gpu, collatz, sizeof collatz),
                  .pName = "main"},
        .layout = layout};
    VkPipeline pipeline;
    CHECK(vkCreateComputePipelines(gpu->device, VK_NULL_HANDLE, 1, &create, NULL, &pipeline));
    VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1};
    VkDescriptorPoolCreateInfo pool_create = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = 1,
        .poolSizeCount = 1,
        .pPoolSizes = &size};
    VkDescriptorPool pool;
    CHECK(vkCreateDescriptorPool(gpu->device, &pool_create, NULL, &pool));
    VkDescriptorSetAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = pool,
        .descriptorSetCount = 1,
        .pSetLayouts = &set_layout};
    VkDescriptorSet set;
    CHECK(vkAllocateDescriptorSets(gpu->device, &allocate, &set));
    VkDescriptorBufferInfo info = {buffer, 0, VK_WHOLE_SIZE};
    VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                  .dstSet = set,
                                  .descriptorCount = 1,
                                  .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  .pBufferInfo = &info};
    vkUpdateDescriptorSets(gpu->device, 1, &write, 0, NULL);
    begin(gpu);
    vkCmdBindPipeline(gpu->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    vkCmdBindDescriptorSets(gpu->commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &set, 0,
                            NULL);
    vkCmdDispatch(gpu->commands, COUNT / 64, 1, 1);
    run(gpu);
    printf("compute: %016llx\n", (unsigned long long)digest(numbers, COUNT * 4));
}

/* The guest writes, the GPU copies, the guest reads; and the GPU fills, the guest reads. */
static void share_memory(struct gpu *gpu)
{
    const uint32_t sizes[] = {4, 4096, 65540, 5 << 20};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t words = sizes[i] / 4, *from, *to;
        VkBuffer source = host_buffer(gpu, sizes[i], (void **)&from);
        VkBuffer target = host_buffer(gpu, sizes[i], (void **)&to);
        for (uint32_t word = 0; word < words; word++)
            from[word] = word * 2654435761u ^ sizes[i];
        VkBufferCopy whole = {.size = sizes[i]};
        begin(gpu);
        vkCmdCopyBuffer(gpu->commands, source, target, 1, &whole);
        run(gpu);
        if (memcmp(from, to, sizes[i])) {
            printf("memory: %u bytes that the guest wrote came back different\n", sizes[i]);
            return;
        }
        begin(gpu);
        vkCmdFillBuffer(gpu->commands, source, 0, VK_WHOLE_SIZE, 0x5eed0000 + i);
        run(gpu);
        for (uint32_t word = 0; word < words; word++)
            if (from[word] != 0x5eed0000 + i) {
                printf("memory: word %u of %u is %#x\n", word, words, from[word]);
                return;
            }
    }
    printf("memory: ok\n");
}

int main(void)
{
    struct gpu gpu;
    open_gpu(&gpu, 0, NULL);
    compute(&gpu);
    share_memory(&gpu);
    return 0;
}
