/* Renders a triangle and reads it back:  render FRAMES
 *
 * Prints "render: HASH" for the first frame, the same on every driver of one kind, and "frames: N"
 * at the end.  Each further frame is turned a little; 0 frames: for ever, a line each 10. */
#include "vulkan_program.h"

#include "wheel_frag.h"
#include "wheel_vert.h"

#define WIDTH 320
#define HEIGHT 240
#define FORMAT VK_FORMAT_R8G8B8A8_UNORM

static VkImage make_image(struct gpu *gpu, VkImageView *view)
{
    VkImageCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
        .imageType = VK_IMAGE_TYPE_2D,
        .format = FORMAT,
        .extent = {WIDTH, HEIGHT, 1},
        .mipLevels = 1,
        .arrayLayers = 1,
        .samples = VK_SAMPLE_COUNT_1_BIT,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT};
    VkImage image;
    CHECK(vkCreateImage(gpu->device, &create, NULL, &image));
    VkMemoryRequirements needs;
    vkGetImageMemoryRequirements(gpu->device, image, &needs);
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .allocationSize = needs.size,
                                     .memoryTypeIndex =
                                         memory_type(gpu, needs.memoryTypeBits, 0)};
    VkDeviceMemory memory;
    CHECK(vkAllocateMemory(gpu->device, &allocate, NULL, &memory));
    CHECK(vkBindImageMemory(gpu->device, image, memory, 0));
    VkImageViewCreateInfo view_create = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
        .image = image,
        .viewType = VK_IMAGE_VIEW_TYPE_2D,
        .format = FORMAT,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}};
    CHECK(vkCreateImageView(gpu->device, &view_create, NULL, view));
    return image;
}

static VkRenderPass make_pass(struct gpu *gpu)
{
    VkAttachmentDescription colour = {.format = FORMAT,
                                      .samples = VK_SAMPLE_COUNT_1_BIT,
                                      .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
                                      .storeOp = VK_ATTACHMENT_STORE_OP_STORE,
                                      .finalLayout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL};
    VkAttachmentReference reference = {0, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    VkSubpassDescription subpass = {.colorAttachmentCount = 1, .pColorAttachments = &reference};
    VkSubpassDependency after = {.dstSubpass = VK_SUBPASS_EXTERNAL,
                                 .srcStageMask = VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT,
                                 .dstStageMask = VK_PIPELINE_STAGE_TRANSFER_BIT,
                                 .srcAccessMask = VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT,
                                 .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT};
    VkRenderPassCreateInfo create = {.sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO,
                                     .attachmentCount = 1,
                                     .pAttachments = &colour,
                                     .subpassCount = 1,
                                     .pSubpasses = &subpass,
                                     .dependencyCount = 1,
                                     .pDependencies = &after};
    VkRenderPass pass;
    CHECK(vkCreateRenderPass(gpu->device, &create, NULL, &pass));
    return pass;
}

static VkPipelineLayout make_layout(struct gpu *gpu)
{
    VkPushConstantRange constants = {VK_SHADER_STAGE_VERTEX_BIT, 0, sizeof(float)};
    VkPipelineLayoutCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &constants};
    VkPipelineLayout layout;
    CHECK(vkCreatePipelineLayout(gpu->device, &create, NULL, &layout));
    return layout;
}

static VkPipeline make_pipeline(struct gpu *gpu, VkRenderPass pass, VkPipelineLayout layout)
{
    VkPipelineShaderStageCreateInfo stages[] = {
        {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
         .stage = VK_SHADER_STAGE_VERTEX_BIT,
         .module = shader(gpu, wheel_vert, sizeof wheel_vert),
         .pName = "main"},
        {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
         .stage = VK_SHADER_STAGE_FRAGMENT_BIT,
         .module = shader(gpu, wheel_frag, sizeof wheel_frag),
         .pName = "main"}};
    VkPipelineVertexInputStateCreateInfo vertices = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_VERTEX_INPUT_STATE_CREATE_INFO};
    VkPipelineInputAssemblyStateCreateInfo assembly = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_INPUT_ASSEMBLY_STATE_CREATE_INFO,
        .topology = VK_PRIMITIVE_TOPOLOGY_TRIANGLE_LIST};
    VkViewport view = {0, 0, WIDTH, HEIGHT, 0, 1};
    VkRect2D area = {.extent = {WIDTH, HEIGHT}};
    VkPipelineViewportStateCreateInfo viewport = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO,
        .viewportCount = 1,
        .pViewports = &view,
        .scissorCount = 1,
        .pScissors = &area};
    VkPipelineRasterizationStateCreateInfo raster = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO, .lineWidth = 1};
    VkPipelineMultisampleStateCreateInfo samples = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO,
        .rasterizationSamples = VK_SAMPLE_COUNT_1_BIT};
    VkPipelineColorBlendAttachmentState blended = {.colorWriteMask = 0xf};
    VkPipelineColorBlendStateCreateInfo blend = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO,
        .attachmentCount = 1,
        .pAttachments = &blended};
    VkGraphicsPipelineCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO,
        .stageCount = 2,
        .pStages = stages,
        .pVertexInputState = &vertices,
        .pInputAssemblyState = &assembly,
        .pViewportState = &viewport,
        .pRasterizationState = &raster,
        .pMultisampleState = &samples,
        .pColorBlendState = &blend,
        .layout = layout,
        .renderPass = pass};
    VkPipeline pipeline;
    CHECK(vkCreateGraphicsPipelines(gpu->device, VK_NULL_HANDLE, 1, &create, NULL, &pipeline));
    return pipeline;
}

int main(int argc, char **argv)
{
    unsigned long frames = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;
    struct gpu gpu;
    open_gpu(&gpu, 0, NULL);
    VkImageView view;
    VkImage image = make_image(&gpu, &view);
    VkRenderPass pass = make_pass(&gpu);
    VkPipelineLayout layout = make_layout(&gpu);
    VkPipeline pipeline = make_pipeline(&gpu, pass, layout);
    VkFramebufferCreateInfo create = {.sType = VK_STRUCTURE_TYPE_FRAMEBUFFER_CREATE_INFO,
                                      .renderPass = pass,
                                      .attachmentCount = 1,
                                      .pAttachments = &view,
                                      .width = WIDTH,
                                      .height = HEIGHT,
                                      .layers = 1};
    VkFramebuffer framebuffer;
    CHECK(vkCreateFramebuffer(gpu.device, &create, NULL, &framebuffer));
    void *pixels;
    VkBuffer buffer = host_buffer(&gpu, WIDTH * HEIGHT * 4, &pixels);
    for (unsigned long frame = 0; frames == 0 || frame < frames; frame++) {
        float angle = 0.3f + 0.05f * (float)frame;
        VkClearValue clear = {.color = {.float32 = {0.2f, 0.2f, 0.2f, 1}}};
        VkRenderPassBeginInfo info = {.sType = VK_STRUCTURE_TYPE_RENDER_PASS_BEGIN_INFO,
                                      .renderPass = pass,
                                      .framebuffer = framebuffer,
                                      .renderArea = {.extent = {WIDTH, HEIGHT}},
                                      .clearValueCount = 1,
                                      .pClearValues = &clear};
        begin(&gpu);
        vkCmdBeginRenderPass(gpu.commands, &info, VK_SUBPASS_CONTENTS_INLINE);
        vkCmdBindPipeline(gpu.commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline);
        vkCmdPushConstants(gpu.commands, layout, VK_SHADER_STAGE_VERTEX_BIT, 0, 4, &angle);
        vkCmdDraw(gpu.commands, 3, 1, 0, 0);
        vkCmdEndRenderPass(gpu.commands);
        VkBufferImageCopy whole = {
            .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1},
            .imageExtent = {WIDTH, HEIGHT, 1}};
        vkCmdCopyImageToBuffer(gpu.commands, image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, buffer,
                               1, &whole);
        run(&gpu);
        if (frame == 0)
            printf("render: %016llx\n", (unsigned long long)digest(pixels, WIDTH * HEIGHT * 4));
        if (frames == 0 && frame % 10 == 0) {
            printf("frame %lu\n", frame);
            fflush(stdout);
        }
    }
    printf("frames: %lu\n", frames);
    return 0;
}
