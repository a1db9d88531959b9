/* Fills every screen with a colour:  pattern XRGB...
 *
 * The last colour serves for all further screens.  Prints the sizes, then "shown". */
#include "kms.h"

int main(int argc, char **argv)
{
    struct screen screens[MAX_SCREENS];
    int fd = open_card();
    unsigned count = find_screens(fd, screens);
    for (unsigned i = 0; i < count; i++) {
        uint32_t width = screens[i].mode.hdisplay, height = screens[i].mode.vdisplay;
        const char *text = argv[argc - 1 < (int)i + 1 ? argc - 1 : (int)i + 1];
        uint32_t colour = (uint32_t)strtoul(text, NULL, 16);
        struct drm_mode_create_dumb create = {.width = width, .height = height};
        uint32_t *pixels = make_dumb(fd, &create);
        for (uint32_t y = 0; y < height; y++)
            for (uint32_t x = 0; x < width; x++)
                pixels[y * (create.pitch / 4) + x] = colour;
        /* A corner of another colour tells which way up it is. */
        for (uint32_t y = 0; y < 16; y++)
            for (uint32_t x = 0; x < 32; x++)
                pixels[y * (create.pitch / 4) + x] = ~colour;
        uint32_t framebuffer = add_framebuffer(fd, create.handle, width, height,
                                               DRM_FORMAT_XRGB8888, create.pitch);
        show(fd, &screens[i], framebuffer);
        mark_dirty(fd, framebuffer);
        printf("screen %u: %ux%u %06x\n", i, width, height, colour);
    }
    hold();
    return 0;
}
