/* Drives virtio-gpu by the kernel's own interface:
 *
 *   virtgpu maps N     map N blobs at a time, each with a pattern of its own
 *   virtgpu align      whether blobs of all sizes can be made, or only of whole host pages
 *   virtgpu time       how long maps and fences take
 *   virtgpu garbage N  N submissions of random bytes, each in a context of its own */
#include <drm.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "virtgpu_ioctls.h"

#define CAPSET_VENUS 4
/* Of the largest page a host has: blobs have to be aligned to it. */
#define PAGE 16384u
#define MAX_MAPS 4096

static void must(int result, const char *what)
{
    if (result != 0) {
        perror(what);
        exit(2);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int open_context(void)
{
    int fd = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        perror("/dev/dri/renderD128");
        exit(2);
    }
    struct context_parameter parameters[] = {{CONTEXT_CAPSET_ID, CAPSET_VENUS},
                                             {CONTEXT_NUM_RINGS, 1}};
    struct context_init init = {.count = 2, .parameters = (uintptr_t)parameters};
    must(ioctl(fd, IOCTL_CONTEXT_INIT, &init), "context init");
    return fd;
}

static void *map_blob(int fd, size_t size, uint32_t *handle)
{
    struct create_blob create = {.memory = BLOB_HOST3D, .flags = BLOB_MAPPABLE, .size = size};
    must(ioctl(fd, IOCTL_CREATE_BLOB, &create), "create blob");
    struct map_blob map = {.handle = create.handle};
    must(ioctl(fd, IOCTL_MAP, &map), "map");
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)map.offset);
    must(data == MAP_FAILED, "mmap");
    *handle = create.handle;
    return data;
}

static void unmap_blob(int fd, void *data, size_t size, uint32_t handle)
{
    must(munmap(data, size), "munmap");
    struct drm_gem_close close = {.handle = handle};
    must(ioctl(fd, DRM_IOCTL_GEM_CLOSE, &close), "close");
}

/* Submits `size` bytes on the CPU's timeline; returns a fence. */
static int submit(int fd, const void *commands, uint32_t size)
{
    struct execbuffer buffer = {.flags = EXECBUFFER_FENCE_OUT | EXECBUFFER_RING_IDX,
                                .size = size,
                                .commands = (uintptr_t)commands,
                                .fence_fd = -1};
    must(ioctl(fd, IOCTL_EXECBUFFER, &buffer), "execbuffer");
    return buffer.fence_fd;
}

static void wait_and_close(int fence)
{
    struct pollfd poll_fence = {.fd = fence, .events = POLLIN};
    if (poll(&poll_fence, 1, 60000) != 1) {
        fprintf(stderr, "a fence does not come\n");
        exit(2);
    }
    close(fence);
}

static int maps(unsigned count)
{
    static uint32_t *data[MAX_MAPS], handles[MAX_MAPS];
    int fd = open_context();
    for (unsigned i = 0; i < count; i++) {
        data[i] = map_blob(fd, PAGE, &handles[i]);
        for (unsigned word = 0; word < PAGE / 4; word++)
            data[i][word] = i << 16 | word;
    }
    for (unsigned i = 0; i < count; i++)
        for (unsigned word = 0; word < PAGE / 4; word++)
            if (data[i][word] != (i << 16 | word)) {
                printf("maps: word %u of blob %u is %#x\n", word, i, data[i][word]);
                return 1;
            }
    for (unsigned i = 0; i < count; i++)
        unmap_blob(fd, data[i], PAGE, handles[i]);
    printf("maps: %u ok\n", count);
    return 0;
}

/* Says the least multiple of 4 KiB that a blob can have. */
static int align(void)
{
    int fd = open_context();
    for (uint32_t size = 4096; size <= PAGE; size += 4096) {
        struct create_blob create = {.memory = BLOB_HOST3D, .flags = BLOB_MAPPABLE, .size = size};
        if (ioctl(fd, IOCTL_CREATE_BLOB, &create) == 0) {
            printf("align: %u\n", size);
            return 0;
        }
    }
    printf("align: none\n");
    return 1;
}

static int ascending(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

static void report(const char *what, double *times, unsigned count)
{
    qsort(times, count, sizeof *times, ascending);
    printf("time: %s p50 %.1f us, p99 %.1f us\n", what, times[count / 2] * 1e6,
           times[count * 99 / 100] * 1e6);
}

static int measure(void)
{
    static double times[1000];
    /* vkEnumerateInstanceVersion, no reply wanted. */
    const uint32_t nothing[] = {137, 0, 1, 0};
    int fd = open_context();
    for (unsigned i = 0; i < 1000; i++) {
        double start = now();
        wait_and_close(submit(fd, nothing, sizeof nothing));
        times[i] = now() - start;
    }
    report("submit and fence", times, 1000);
    for (unsigned i = 0; i < 300; i++) {
        uint32_t handle;
        double start = now();
        volatile uint32_t *data = map_blob(fd, PAGE, &handle);
        *data = i;
        times[i] = now() - start;
        unmap_blob(fd, (void *)data, PAGE, handle);
    }
    report("create, map and touch", times, 300);
    for (unsigned i = 0; i < 300; i++) {
        uint32_t handle;
        void *data = map_blob(fd, PAGE, &handle);
        double start = now();
        unmap_blob(fd, data, PAGE, handle);
        times[i] = now() - start;
    }
    report("unmap and close", times, 300);
    return 0;
}

static int garbage(unsigned count)
{
    uint32_t bytes[256];
    srand(1);
    for (unsigned i = 0; i < count; i++) {
        int fd = open_context();
        for (unsigned word = 0; word < 256; word++)
            bytes[word] = (uint32_t)rand() ^ (uint32_t)rand() << 16;
        bytes[0] %= 450;
        uint32_t size = 4 + (uint32_t)rand() % 250 * 4;
        wait_and_close(submit(fd, bytes, size));
        close(fd);
    }
    printf("garbage: %u survived\n", count);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    unsigned count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 0;
    if (!strcmp(what, "maps") && count <= MAX_MAPS)
        return maps(count);
    if (!strcmp(what, "align"))
        return align();
    if (!strcmp(what, "time"))
        return measure();
    if (!strcmp(what, "garbage"))
        return garbage(count);
    fprintf(stderr, "virtgpu maps N | align | time | garbage N\n");
    return 2;
}
