/* A Vulkan program that reads and draws with nothing: null descriptors, vertices and indices.
 *
 *     null_program COMPUTE.spv VERTEX.spv set|push|template|vertices
 *
 * prints what its shaders have read, a number a line: zeros, and the marks that they ran.  Indices are
 * null where VK_KHR_maintenance6 is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define RESULTS 64
#define DRAWN 3
/* Newer than the oldest headers that this compiles with. */
#define MAINTENANCE_6_FEATURES ((VkStructureType)1000545000)

static VkDevice device;
static VkQueue queue;
static VkPhysicalDevice physical;
static VkCommandBuffer commands;
static VkDescriptorPool pool;
static VkSampler sampler, comparing;
static VkBuffer out;
static uint32_t *results;
static VkBool32 null_indices;

static void check(const char *what, VkResult result) {
    if (result != VK_SUCCESS) {
        printf("%s: %d\n", what, result);
        exit(1);
    }
}

static const VkDescriptorType types[] = {
    VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,         VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,   VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER,
    VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    VK_DESCRIPTOR_TYPE_STORAGE_IMAGE,          VK_DESCRIPTOR_TYPE_STORAGE_IMAGE,
    VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE,          VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,
};
enum { SHADOW = 11, ALONE = 14, IMMUTABLE = 15, TEXELS_TOO = COUNT(types) - 1 };

static uint32_t elements(uint32_t binding) { return binding == ALONE ? 2 : 1; }

static void start(void) {
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .apiVersion = VK_API_VERSION_1_3};
    const VkInstanceCreateInfo instance_info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                                .pApplicationInfo = &application};
    VkInstance instance;
    uint32_t one = 1;
    check("vkCreateInstance", vkCreateInstance(&instance_info, NULL, &instance));
    check("vkEnumeratePhysicalDevices", vkEnumeratePhysicalDevices(instance, &one, &physical));
    struct {
        VkStructureType sType;
        void *pNext;
        VkBool32 maintenance6;
    } indices = {MAINTENANCE_6_FEATURES, NULL, VK_FALSE};
    VkPhysicalDeviceRobustness2FeaturesEXT robustness = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT, .pNext = &indices};
    VkPhysicalDeviceVulkan13Features newest = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, .pNext = &robustness};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &newest};
    vkGetPhysicalDeviceFeatures2(physical, &features);
    printf("nullDescriptor %u\n", robustness.nullDescriptor);
    robustness.robustBufferAccess2 = robustness.robustImageAccess2 = VK_FALSE;
    const char *const extensions[] = {"VK_EXT_robustness2", "VK_KHR_push_descriptor",
                                      "VK_KHR_maintenance6"};
    null_indices = indices.maintenance6;
    robustness.pNext = null_indices ? &indices : NULL;
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                                .queueCount = 1,
                                                .pQueuePriorities = &priority};
    const VkDeviceCreateInfo device_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                            .pNext = &features,
                                            .queueCreateInfoCount = 1,
                                            .pQueueCreateInfos = &queue_info,
                                            .enabledExtensionCount = null_indices ? 3 : 2,
                                            .ppEnabledExtensionNames = extensions};
    check("vkCreateDevice", vkCreateDevice(physical, &device_info, NULL, &device));
    vkGetDeviceQueue(device, 0, 0, &queue);
}

static void make_results(void) {
    const VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                     .size = 4 * RESULTS,
                                     .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT};
    check("vkCreateBuffer", vkCreateBuffer(device, &info, NULL, &out));
    VkMemoryRequirements needs;
    VkPhysicalDeviceMemoryProperties memories;
    vkGetBufferMemoryRequirements(device, out, &needs);
    vkGetPhysicalDeviceMemoryProperties(physical, &memories);
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .allocationSize = needs.size};
    while (!(needs.memoryTypeBits >> allocate.memoryTypeIndex & 1) ||
           !(memories.memoryTypes[allocate.memoryTypeIndex].propertyFlags &
             VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
        allocate.memoryTypeIndex++;
    VkDeviceMemory memory;
    check("vkAllocateMemory", vkAllocateMemory(device, &allocate, NULL, &memory));
    check("vkBindBufferMemory", vkBindBufferMemory(device, out, memory, 0));
    check("vkMapMemory", vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, (void **)&results));
    VkSamplerCreateInfo sampling = {.sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO};
    check("vkCreateSampler", vkCreateSampler(device, &sampling, NULL, &sampler));
    sampling.compareEnable = VK_TRUE;
    sampling.compareOp = VK_COMPARE_OP_LESS;
    check("vkCreateSampler", vkCreateSampler(device, &sampling, NULL, &comparing));
}

static void make_commands(void) {
    VkCommandPool made;
    const VkCommandPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    check("vkCreateCommandPool", vkCreateCommandPool(device, &info, NULL, &made));
    const VkCommandBufferAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = made,
        .commandBufferCount = 1};
    check("vkAllocateCommandBuffers", vkAllocateCommandBuffers(device, &allocate, &commands));
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    check("vkBeginCommandBuffer", vkBeginCommandBuffer(commands, &begin));
    VkDescriptorPoolSize sizes[COUNT(types) + 3];
    for (uint32_t i = 0; i < COUNT(types); i++)
        sizes[i] = (VkDescriptorPoolSize){types[i], elements(i)};
    sizes[COUNT(types)] = (VkDescriptorPoolSize){VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 2};
    sizes[COUNT(types) + 1] =
        (VkDescriptorPoolSize){VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC, 1};
    sizes[COUNT(types) + 2] =
        (VkDescriptorPoolSize){VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC, 1};
    const VkDescriptorPoolCreateInfo pool_info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = 4,
        .poolSizeCount = COUNT(sizes),
        .pPoolSizes = sizes};
    check("vkCreateDescriptorPool", vkCreateDescriptorPool(device, &pool_info, NULL, &pool));
}

static VkDescriptorSetLayout make_layout(VkFlags flags, uint32_t count,
                                         const VkDescriptorSetLayoutBinding *bindings) {
    const VkDescriptorSetLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .flags = flags,
        .bindingCount = count,
        .pBindings = bindings};
    VkDescriptorSetLayout made;
    check("vkCreateDescriptorSetLayout", vkCreateDescriptorSetLayout(device, &info, NULL, &made));
    return made;
}

static VkDescriptorSet make_set(VkDescriptorSetLayout layout) {
    const VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = pool,
        .descriptorSetCount = 1,
        .pSetLayouts = &layout};
    VkDescriptorSet made;
    check("vkAllocateDescriptorSets", vkAllocateDescriptorSets(device, &info, &made));
    return made;
}

static VkPipelineLayout make_pipeline_layout(uint32_t count, const VkDescriptorSetLayout *sets) {
    const VkPipelineLayoutCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                             .setLayoutCount = count,
                                             .pSetLayouts = sets};
    VkPipelineLayout made;
    check("vkCreatePipelineLayout", vkCreatePipelineLayout(device, &info, NULL, &made));
    return made;
}

static VkPipelineShaderStageCreateInfo load(const char *path, VkShaderStageFlagBits stage) {
    static uint32_t words[1 << 16];
    FILE *file = fopen(path, "rb");
    VkShaderModuleCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                     .pCode = words};
    if (!file || !(info.codeSize = fread(words, 1, sizeof words, file)))
        exit(64);
    fclose(file);
    VkShaderModule module;
    check("vkCreateShaderModule", vkCreateShaderModule(device, &info, NULL, &module));
    return (VkPipelineShaderStageCreateInfo){
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
        .stage = stage,
        .module = module,
        .pName = "main"};
}

/* ---- nothing, in each way to say it ---- */

static struct nothing {
    VkDescriptorBufferInfo buffer;
    VkDescriptorImageInfo images[2];
    VkBufferView view;
} nothing[COUNT(types)];

static void say_nothing(VkWriteDescriptorSet *writes, VkDescriptorUpdateTemplateEntry *entries) {
    for (uint32_t i = 0; i < COUNT(types); i++) {
        size_t offset = offsetof(struct nothing, images);
        nothing[i].buffer.range = VK_WHOLE_SIZE;
        for (uint32_t j = 0; j < 2; j++)
            nothing[i].images[j] = (VkDescriptorImageInfo){
                .sampler = i == SHADOW ? comparing : sampler,
                .imageLayout = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL};
        writes[i] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                           .dstBinding = i,
                                           .descriptorCount = elements(i),
                                           .descriptorType = types[i],
                                           .pImageInfo = nothing[i].images,
                                           .pBufferInfo = &nothing[i].buffer,
                                           .pTexelBufferView = &nothing[i].view};
        if (i < 2)
            offset = offsetof(struct nothing, buffer);
        else if (i < 4 || i == TEXELS_TOO)
            offset = offsetof(struct nothing, view);
        entries[i] = (VkDescriptorUpdateTemplateEntry){
            .dstBinding = i,
            .descriptorCount = elements(i),
            .descriptorType = types[i],
            .offset = i * sizeof(struct nothing) + offset,
            .stride = sizeof(VkDescriptorImageInfo)};
    }
}

static void *get(const char *name) { return (void *)vkGetDeviceProcAddr(device, name); }

static void name_nothing(const char *way, VkDescriptorSetLayout layout, VkPipelineLayout pipeline) {
    VkWriteDescriptorSet writes[COUNT(types)];
    VkDescriptorUpdateTemplateEntry entries[COUNT(types)];
    say_nothing(writes, entries);
    if (strcmp(way, "push") == 0) {
        PFN_vkCmdPushDescriptorSetKHR push = get("vkCmdPushDescriptorSetKHR");
        push(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline, 0, COUNT(writes), writes);
        return;
    }
    VkDescriptorSet set = make_set(layout);
    if (strcmp(way, "template") == 0) {
        const VkDescriptorUpdateTemplateCreateInfo info = {
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_UPDATE_TEMPLATE_CREATE_INFO,
            .descriptorUpdateEntryCount = COUNT(entries),
            .pDescriptorUpdateEntries = entries,
            .descriptorSetLayout = layout};
        VkDescriptorUpdateTemplate made;
        check("vkCreateDescriptorUpdateTemplate",
              vkCreateDescriptorUpdateTemplate(device, &info, NULL, &made));
        vkUpdateDescriptorSetWithTemplate(device, set, made, nothing);
    } else {
        for (uint32_t i = 0; i < COUNT(writes); i++)
            writes[i].dstSet = set;
        vkUpdateDescriptorSets(device, COUNT(writes), writes, 0, NULL);
    }
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline, 0, 1, &set, 0,
                            NULL);
}

static VkDescriptorSet make_output(VkDescriptorSetLayout layout) {
    VkDescriptorSet set = make_set(layout);
    const VkDescriptorBufferInfo whole = {out, 0, VK_WHOLE_SIZE};
    const VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                        .dstSet = set,
                                        .descriptorCount = 1,
                                        .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                        .pBufferInfo = &whole};
    vkUpdateDescriptorSets(device, 1, &write, 0, NULL);
    return set;
}

static VkDescriptorSetLayout output_layout(void) {
    const VkDescriptorSetLayoutBinding binding = {
        .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
        .descriptorCount = 1,
        .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT | VK_SHADER_STAGE_VERTEX_BIT};
    return make_layout(0, 1, &binding);
}

/* Dynamic descriptors of nothing, bound far away. */
static void bind_moved(VkDescriptorSetLayout layout, VkPipelineLayout pipeline) {
    VkDescriptorSet set = make_set(layout);
    const VkDescriptorBufferInfo none = {VK_NULL_HANDLE, 0, VK_WHOLE_SIZE};
    for (uint32_t i = 0; i < 2; i++) {
        const VkWriteDescriptorSet write = {
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType = i ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC
                                : VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC,
            .pBufferInfo = &none};
        vkUpdateDescriptorSets(device, 1, &write, 0, NULL);
    }
    const uint32_t far[2] = {0x7fff0000, 0xffff0000};
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline, 2, 1, &set, 2,
                            far);
}

static void compute(const char *path, const char *way) {
    VkDescriptorSetLayoutBinding bindings[COUNT(types)], moved[2] = {{0}};
    for (uint32_t i = 0; i < COUNT(types); i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = types[i],
            .descriptorCount = elements(i),
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
            .pImmutableSamplers = i == IMMUTABLE ? &sampler : NULL};
    for (uint32_t i = 0; i < 2; i++)
        moved[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = i ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER_DYNAMIC
                                : VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER_DYNAMIC,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkFlags flags = strcmp(way, "push") ? 0 : VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT_KHR;
    const VkDescriptorSetLayout layouts[] = {make_layout(flags, COUNT(types), bindings),
                                             output_layout(), make_layout(0, 2, moved)};
    VkPipelineLayout layout = make_pipeline_layout(COUNT(layouts), layouts);
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = load(path, VK_SHADER_STAGE_COMPUTE_BIT),
        .layout = layout};
    VkPipeline pipeline;
    check("vkCreateComputePipelines",
          vkCreateComputePipelines(device, VK_NULL_HANDLE, 1, &info, NULL, &pipeline));
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    name_nothing(way, layouts[0], layout);
    VkDescriptorSet set = make_output(layouts[1]);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 1, 1, &set, 0, NULL);
    bind_moved(layouts[2], layout);
    vkCmdDispatch(commands, 1, 1, 1);
}

/* Draws of one vertex each: by its number, by its index in nothing, in either way to say that. */
static void draw(const char *path) {
    const VkDescriptorSetLayout set_layout = output_layout();
    VkPipelineLayout layout = make_pipeline_layout(1, &set_layout);
    const VkPipelineShaderStageCreateInfo stage = load(path, VK_SHADER_STAGE_VERTEX_BIT);
    const VkVertexInputBindingDescription binding = {.stride = 16};
    const VkVertexInputAttributeDescription attribute = {.format =
                                                             VK_FORMAT_R32G32B32A32_SFLOAT};
    const VkPipelineVertexInputStateCreateInfo input = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_VERTEX_INPUT_STATE_CREATE_INFO,
        .vertexBindingDescriptionCount = 1,
        .pVertexBindingDescriptions = &binding,
        .vertexAttributeDescriptionCount = 1,
        .pVertexAttributeDescriptions = &attribute};
    const VkPipelineInputAssemblyStateCreateInfo assembly = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_INPUT_ASSEMBLY_STATE_CREATE_INFO};
    const VkPipelineRasterizationStateCreateInfo raster = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO,
        .rasterizerDiscardEnable = VK_TRUE,
        .lineWidth = 1};
    const VkPipelineRenderingCreateInfo rendering = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_RENDERING_CREATE_INFO};
    const VkGraphicsPipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO,
        .pNext = &rendering,
        .stageCount = 1,
        .pStages = &stage,
        .pVertexInputState = &input,
        .pInputAssemblyState = &assembly,
        .pRasterizationState = &raster,
        .layout = layout};
    VkPipeline pipeline;
    check("vkCreateGraphicsPipelines",
          vkCreateGraphicsPipelines(device, VK_NULL_HANDLE, 1, &info, NULL, &pipeline));
    VkDescriptorSet set = make_output(set_layout);
    const VkBuffer none = VK_NULL_HANDLE;
    const VkDeviceSize start = 0;
    const VkRenderingInfo begin = {.sType = VK_STRUCTURE_TYPE_RENDERING_INFO,
                                   .renderArea.extent = {1, 1},
                                   .layerCount = 1};
    vkCmdBeginRendering(commands, &begin);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, layout, 0, 1, &set, 0, NULL);
    vkCmdBindVertexBuffers(commands, 0, 1, &none, &start);
    vkCmdDraw(commands, 1, 1, 0, 0);
    vkCmdBindVertexBuffers2(commands, 0, 1, &none, &start, NULL, NULL);
    vkCmdDraw(commands, 1, 1, 9, 1);
    if (null_indices) {
        vkCmdBindIndexBuffer(commands, VK_NULL_HANDLE, 0, VK_INDEX_TYPE_UINT32);
        vkCmdDrawIndexed(commands, 1, 1, 5, 0, 2);
    }
    vkCmdEndRendering(commands);
}

static void run(uint32_t count) {
    check("vkEndCommandBuffer", vkEndCommandBuffer(commands));
    const VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                               .commandBufferCount = 1,
                               .pCommandBuffers = &commands};
    memset(results, 0xff, 4 * RESULTS);
    check("vkQueueSubmit", vkQueueSubmit(queue, 1, &info, VK_NULL_HANDLE));
    check("vkQueueWaitIdle", vkQueueWaitIdle(queue));
    for (uint32_t i = 0; i < count; i++)
        printf("%u\n", results[i]);
}

int main(int count, char **words) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count != 4)
        return 64;
    start();
    make_results();
    make_commands();
    if (strcmp(words[3], "vertices") == 0)
        draw(words[2]);
    else
        compute(words[1], words[3]);
    run(strcmp(words[3], "vertices") == 0 ? 4 * (DRAWN - !null_indices) - 1 : 32);
    return 0;
}
