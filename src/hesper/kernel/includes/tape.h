/* What a tape wants of C: pages that are the same, pages that are there, and a last word. */
#ifndef HESPER_TAPE_H
#define HESPER_TAPE_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define HESPER_TAPE_PAGE 4096

/* A number that tells whether a page is what it was.  Eight lanes, so that the multiplications do not
 * wait for each other: memory is what bounds it.  Who wants two pages to have one number can have it, and
 * spoils no recording but its own. */
static inline uint64_t hesper_page_number(const void *at, size_t size)
{
    const uint64_t prime = 0x9E3779B97F4A7C15u;
    uint64_t lanes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint64_t words[8], found = size;
    const uint8_t *bytes = at;
    size_t i, j;
    for (i = 0; i + 64 <= size; i += 64) {
        memcpy(words, bytes + i, 64);
        for (j = 0; j < 8; j++) {
            lanes[j] = (lanes[j] ^ words[j]) * prime;
            lanes[j] ^= lanes[j] >> 32;
        }
    }
    for (; i < size; i++)
        lanes[i & 7] = (lanes[i & 7] ^ bytes[i]) * prime;
    for (j = 0; j < 8; j++) {
        found = (found ^ lanes[j]) * prime;
        found ^= found >> 29;
    }
    return found;
}

/* The next bytes from `start` on that the memory object has pages for: where they begin, and `*end`.
 * Reading others would give them pages.  Where the system or the object does not say: all of them. */
static inline uint64_t hesper_pages_there(int fd, uint64_t start, uint64_t size, uint64_t *end)
{
    *end = size;
#if defined(SEEK_DATA) && defined(SEEK_HOLE)
    if (fd >= 0) {
        off_t from = lseek(fd, (off_t)start, SEEK_DATA), to;
        if (from < 0)
            return errno == ENXIO ? size : start;
        to = lseek(fd, from, SEEK_HOLE);
        if (to > from && (uint64_t)to < size)
            *end = (uint64_t)to;
        return (uint64_t)from < size ? (uint64_t)from : size;
    }
#endif
    (void)fd;
    return start;
}

/* For a process that dies: async-signal-safe. */
static inline void hesper_tape_write(int fd, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    while (size) {
        ssize_t count = write(fd, bytes, size);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return;
        bytes += count;
        size -= (size_t)count;
    }
}

static inline void hesper_tape_pause(void)
{
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, NULL);
}

#endif
