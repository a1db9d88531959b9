/* Puts a cursor on the first screen by the planes' interface of X servers:  cursor HOT_X HOT_Y
 *
 * Prints "shown"; moves it for every line with two coordinates, which are its top left corner. */
#include "kms.h"

#define EDGE 64u

int main(int argc, char **argv)
{
    struct screen screens[MAX_SCREENS];
    int fd = open_card();
    if (argc != 3 || find_screens(fd, screens) == 0)
        return 2;
    /* What the screen shows already stays: a cursor needs a CRTC that is on. */
    struct drm_mode_create_dumb create = {.width = EDGE, .height = EDGE};
    uint32_t *pixels = make_dumb(fd, &create);
    /* Opaque at the left, half so in the middle, nothing at the right. */
    for (uint32_t y = 0; y < EDGE; y++)
        for (uint32_t x = 0; x < EDGE; x++)
            pixels[y * EDGE + x] = x < 16 ? 0xffff0000 : x < 32 ? 0x80008000 : 0;
    struct drm_mode_cursor2 cursor = {.flags = DRM_MODE_CURSOR_BO,
                                      .crtc_id = screens[0].crtc,
                                      .width = EDGE,
                                      .height = EDGE,
                                      .handle = create.handle,
                                      .hot_x = atoi(argv[1]),
                                      .hot_y = atoi(argv[2])};
    MUST(fd, DRM_IOCTL_MODE_CURSOR2, &cursor);
    printf("shown\n");
    fflush(stdout);
    cursor.flags = DRM_MODE_CURSOR_MOVE;
    while (scanf("%d %d", &cursor.x, &cursor.y) == 2)
        MUST(fd, DRM_IOCTL_MODE_CURSOR2, &cursor);
    return 0;
}
