/* Has Linux answer as macOS does where the two differ and Hesper could tell: to be preloaded.
 *
 * From XNU's sources (bsd/kern/posix_shm.c, sys_generic.c, uipc_usrreq.c, kern_time.c) and its manual
 * pages; nothing here was compared with a Mac:
 * - poll() says nothing of a descriptor of which nothing is asked (`events` 0), not even its end;
 * - POSIX shared memory: names of 31 characters at most; ftruncate() once; fstat() tells its size, and
 *   neither device nor inode nor type;
 * - an accepted socket is as its listener is: one that does not wait gives one that does not;
 * - CLOCK_MONOTONIC counts in microseconds;
 * - Unix stream sockets have buffers of 8 KiB;
 * - one that was told SO_SNDLOWAT can be written to, by what poll() says, when so much is free.  (Here:
 *   when the other end has read all, as Hesper asks for; and the buffer is never so full by itself that
 *   it could not be written to.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_NAME 31
#define MOST_POLLED 4096
/* Linux doubles it, for what it counts beside the bytes. */
#define SOCKET_BUFFER 4096

#define NEXT(name) ((__typeof__(&name))next_of(#name))

static void *next_of(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

/* poll() */

static unsigned char waits_for_all[MOST_POLLED]; /* sockets that were told SO_SNDLOWAT */

/* Takes back that a socket can be written to whose other end has not read all. */
static int without_unread(struct pollfd *fds, nfds_t count, int found) {
    for (nfds_t i = 0; i < count && found > 0; i++) {
        int unread = 0, fd = fds[i].fd;
        if (fd < 0 || fd >= MOST_POLLED || !waits_for_all[fd] || !(fds[i].revents & POLLOUT))
            continue;
        if (ioctl(fd, SIOCOUTQ, &unread) == 0 && unread) {
            fds[i].revents &= ~POLLOUT;
            found -= !fds[i].revents;
        }
    }
    return found;
}

static int is_waiting_for_all(const struct pollfd *fds, nfds_t count) {
    for (nfds_t i = 0; i < count; i++)
        if (fds[i].fd >= 0 && fds[i].fd < MOST_POLLED && waits_for_all[fds[i].fd] &&
            fds[i].events & POLLOUT)
            return 1;
    return 0;
}

static int poll_silently(struct pollfd *fds, nfds_t count, int timeout, const struct timespec *until,
                         const sigset_t *mask) {
    static int (*next_poll)(struct pollfd *, nfds_t, int);
    static int (*next_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    if (!next_poll) {
        next_ppoll = NEXT(ppoll);
        next_poll = NEXT(poll);
    }
    if (count > MOST_POLLED)
        abort();
    int hidden[count ? count : 1];
    for (nfds_t i = 0; i < count; i++) {
        hidden[i] = fds[i].fd;
        if (!fds[i].events)
            fds[i].fd = -1;
    }
    int found;
    if (mask || until) {
        found = next_ppoll(fds, count, until, mask);
    } else if (!is_waiting_for_all(fds, count)) {
        found = next_poll(fds, count, timeout);
    } else {
        /* A millisecond at a time: nothing else tells of what the other end reads. */
        for (int left = timeout; ; left -= left > 0) {
            found = without_unread(fds, count, next_poll(fds, count, left ? 1 : 0));
            if (found || !left)
                break;
            if (next_poll(NULL, 0, 1) < 0) {
                found = -1;
                break;
            }
        }
    }
    int error = errno;
    for (nfds_t i = 0; i < count; i++)
        fds[i].fd = hidden[i];
    errno = error;
    return found;
}

int poll(struct pollfd *fds, nfds_t count, int timeout) {
    return poll_silently(fds, count, timeout, NULL, NULL);
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask) {
    return poll_silently(fds, count, -1, timeout, mask);
}

/* POSIX shared memory */

static int real_status(int fd, struct stat *status) {
    static int (*next)(int, struct stat *);
    if (!next)
        next = NEXT(fstat);
    return next(fd, status);
}

/* Whether a descriptor is POSIX shared memory, by where Linux keeps it. */
static int is_shared_memory(int fd) {
    static dev_t place;
    struct stat found;
    int error = errno;
    if (!place && stat("/dev/shm", &found) == 0)
        place = found.st_dev;
    int result = real_status(fd, &found) == 0 && S_ISREG(found.st_mode) && found.st_dev == place;
    errno = error;
    return result;
}

int shm_open(const char *name, int flags, mode_t mode) {
    static int (*next)(const char *, int, mode_t);
    if (!next)
        next = NEXT(shm_open);
    if (strlen(name) > MOST_NAME) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return next(name, flags, mode);
}

int ftruncate(int fd, off_t size) {
    static int (*next)(int, off_t);
    struct stat found;
    if (!next)
        next = NEXT(ftruncate);
    if (is_shared_memory(fd) && real_status(fd, &found) == 0 && found.st_size) {
        errno = EINVAL;
        return -1;
    }
    return next(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    return ftruncate(fd, size);
}

int fstat(int fd, struct stat *status) {
    int result = real_status(fd, status);
    if (result == 0 && is_shared_memory(fd)) {
        status->st_dev = 0;
        status->st_ino = 0;
        status->st_mode &= ~(mode_t)S_IFMT;
    }
    return result;
}

int fstat64(int fd, struct stat64 *status) {
    return fstat(fd, (struct stat *)status);
}

/* Sockets */

static int shrunk(int fd) {
    if (fd >= 0 && fd < MOST_POLLED)
        waits_for_all[fd] = 0;
    int size = SOCKET_BUFFER, error = errno;
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    if (fd >= 0 && getsockname(fd, (struct sockaddr *)&name, &length) == 0 && name.ss_family == AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    errno = error;
    return fd;
}

int socket(int domain, int type, int protocol) {
    static int (*next)(int, int, int);
    if (!next)
        next = NEXT(socket);
    return shrunk(next(domain, type, protocol));
}

int socketpair(int domain, int type, int protocol, int ends[2]) {
    static int (*next)(int, int, int, int *);
    if (!next)
        next = NEXT(socketpair);
    int result = next(domain, type, protocol, ends);
    if (result == 0) {
        shrunk(ends[0]);
        shrunk(ends[1]);
    }
    return result;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length) {
    static int (*next)(int, int, int, const void *, socklen_t);
    if (!next)
        next = NEXT(setsockopt);
    if (level == SOL_SOCKET && option == SO_SNDBUF && *(const int *)value < SOCKET_BUFFER) {
        /* So small a one would be full by what Linux counts beside the bytes. */
        int large = 16 * SOCKET_BUFFER;
        return next(fd, level, option, &large, sizeof large);
    }
    if (level != SOL_SOCKET || option != SO_SNDLOWAT)
        return next(fd, level, option, value, length);
    if (fd < 0 || fd >= MOST_POLLED) {
        errno = EBADF;
        return -1;
    }
    waits_for_all[fd] = 1;
    return 0;
}

static int like_its_listener(int listener, int fd) {
    int error = errno, flags = fcntl(listener, F_GETFL);
    if (fd >= 0 && flags >= 0 && flags & O_NONBLOCK)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    errno = error;
    return shrunk(fd);
}

int accept(int listener, struct sockaddr *name, socklen_t *length) {
    static int (*next)(int, struct sockaddr *, socklen_t *);
    if (!next)
        next = NEXT(accept);
    return like_its_listener(listener, next(listener, name, length));
}

int accept4(int listener, struct sockaddr *name, socklen_t *length, int flags) {
    static int (*next)(int, struct sockaddr *, socklen_t *, int);
    if (!next)
        next = NEXT(accept4);
    return like_its_listener(listener, next(listener, name, length, flags));
}

/* Time */

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = NEXT(clock_gettime);
    int result = next(clock, now);
    if (result == 0 && clock == CLOCK_MONOTONIC)
        now->tv_nsec -= now->tv_nsec % 1000;
    return result;
}
