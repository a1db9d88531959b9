/* A stand-in for /dev/udmabuf, for the peer's server on machines that have none (containers, most
 * virtual machines).  virgl_test_server turns every mapped allocation on lavapipe into a dma-buf by
 * way of that device and fails without it.  Here the "dma-buf" is the memfd itself: it maps alike,
 * which is all that a client on the same machine does with it.
 *
 *     cc -O2 -shared -fPIC bench/udmabuf_stand_in.c -o build/udmabuf_stand_in.so -ldl
 *     LD_PRELOAD=build/udmabuf_stand_in.so virgl_test_server --venus ...
 *
 * Hesper needs nothing of the kind. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

static const char device[] = "/dev/udmabuf";

typedef int (*open_function)(const char *path, int flags, ...);
typedef int (*ioctl_function)(int fd, unsigned long request, ...);

static int open_either(const char *name, const char *path, int flags, mode_t mode) {
    open_function real = (open_function)dlsym(RTLD_NEXT, name);
    if (path && !strcmp(path, device))
        return memfd_create("udmabuf-stand-in", flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
    return real(path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_either("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_either("open64", path, flags, mode);
}

/* What glibc's headers make of open when _FORTIFY_SOURCE is set. */
int __open_2(const char *path, int flags) {
    return open_either("open", path, flags, 0);
}

int __open64_2(const char *path, int flags) {
    return open_either("open64", path, flags, 0);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == UDMABUF_CREATE) {
        const struct udmabuf_create *wanted = argument;
        if (wanted->offset) {
            errno = EINVAL;
            return -1;
        }
        int copy = wanted->flags & UDMABUF_FLAGS_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD;
        return fcntl((int)wanted->memfd, copy, 0);
    }
    /* The processor's caches are coherent, so there is nothing to do for a memfd. */
    if (request == DMA_BUF_IOCTL_SYNC)
        return 0;
    ioctl_function real = (ioctl_function)dlsym(RTLD_NEXT, "ioctl");
    return real(fd, request, argument);
}
