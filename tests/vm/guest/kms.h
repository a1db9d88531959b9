/* Mode setting by the kernel's own interface; no libdrm.  Everything that fails ends the program. */
#ifndef KMS_H
#define KMS_H

#include <drm.h>
#include <drm_fourcc.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_SCREENS 16

struct screen {
    uint32_t connector, crtc;
    struct drm_mode_modeinfo mode;
};

static inline void must(int fd, unsigned long request, void *argument, const char *what)
{
    if (ioctl(fd, request, argument) != 0) {
        perror(what);
        exit(2);
    }
}
#define MUST(fd, request, argument) must(fd, request, argument, #request)

static inline int open_card(void)
{
    int fd = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        perror("/dev/dri/card0");
        exit(2);
    }
    return fd;
}

/* Connected screens with their preferred modes; the Nth connector goes to the Nth CRTC. */
static inline unsigned find_screens(int fd, struct screen *screens)
{
    uint32_t connectors[MAX_SCREENS], crtcs[MAX_SCREENS];
    struct drm_mode_card_res resources = {.connector_id_ptr = (uintptr_t)connectors,
                                          .count_connectors = MAX_SCREENS,
                                          .crtc_id_ptr = (uintptr_t)crtcs,
                                          .count_crtcs = MAX_SCREENS};
    MUST(fd, DRM_IOCTL_MODE_GETRESOURCES, &resources);
    unsigned found = 0;
    for (unsigned i = 0; i < resources.count_connectors; i++) {
        struct drm_mode_get_connector ask = {.connector_id = connectors[i]};
        MUST(fd, DRM_IOCTL_MODE_GETCONNECTOR, &ask);
        if (ask.connection != 1 || ask.count_modes == 0)
            continue;
        struct drm_mode_modeinfo *modes = calloc(ask.count_modes, sizeof *modes);
        struct drm_mode_get_connector again = {.connector_id = connectors[i],
                                               .modes_ptr = (uintptr_t)modes,
                                               .count_modes = ask.count_modes};
        MUST(fd, DRM_IOCTL_MODE_GETCONNECTOR, &again);
        screens[found++] = (struct screen){connectors[i], crtcs[i], modes[0]};
        free(modes);
    }
    return found;
}

/* Memory for a picture, XRGB, which the card can show; its rows are `create.pitch` bytes apart. */
static inline uint32_t *make_dumb(int fd, struct drm_mode_create_dumb *create)
{
    create->bpp = 32;
    MUST(fd, DRM_IOCTL_MODE_CREATE_DUMB, create);
    struct drm_mode_map_dumb map = {.handle = create->handle};
    MUST(fd, DRM_IOCTL_MODE_MAP_DUMB, &map);
    void *pixels =
        mmap(NULL, create->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)map.offset);
    if (pixels == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return pixels;
}

static inline uint32_t add_framebuffer(int fd, uint32_t handle, uint32_t width, uint32_t height,
                                       uint32_t format, uint32_t pitch)
{
    struct drm_mode_fb_cmd2 add = {.width = width,
                                   .height = height,
                                   .pixel_format = format,
                                   .handles = {handle},
                                   .pitches = {pitch}};
    MUST(fd, DRM_IOCTL_MODE_ADDFB2, &add);
    return add.fb_id;
}

static inline void show(int fd, const struct screen *screen, uint32_t framebuffer)
{
    uint32_t connector = screen->connector;
    struct drm_mode_crtc set = {.set_connectors_ptr = (uintptr_t)&connector,
                                .count_connectors = 1,
                                .crtc_id = screen->crtc,
                                .fb_id = framebuffer,
                                .mode_valid = 1,
                                .mode = screen->mode};
    MUST(fd, DRM_IOCTL_MODE_SETCRTC, &set);
}

static inline void mark_dirty(int fd, uint32_t framebuffer)
{
    struct drm_mode_fb_dirty_cmd dirty = {.fb_id = framebuffer};
    MUST(fd, DRM_IOCTL_MODE_DIRTYFB, &dirty);
}

/* Says that the screen is ready, and waits for a line. */
static inline void hold(void)
{
    char line[64];
    printf("shown\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(0);
}

#endif
