/* What descriptors do beside bytes: be passed, be waited for, be left. */
#ifndef HESPER_SOCKETS_H
#define HESPER_SOCKETS_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A pipe that children do not inherit; 0, or -1 with errno set. */
static inline int hesper_pipe(int *ends) {
#ifdef __linux__
    return pipe2(ends, O_CLOEXEC);
#else
    if (pipe(ends))
        return -1;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    return 0;
#endif
}

/* Sends up to `count` (1 or 2) messages; how many bytes that were, or -1 with errno set. */
static inline ssize_t hesper_send_some(int fd, struct msghdr *messages, unsigned count) {
#ifdef __linux__
    /* In one call: whoever is woken by the first finds the second there. */
    struct mmsghdr both[2] = {{messages[0], 0}, {messages[count - 1], 0}};
    int sent = sendmmsg(fd, both, count, 0);
    if (sent < 0)
        return -1;
    return (ssize_t)both[0].msg_len + (sent == 2 ? (ssize_t)both[1].msg_len : 0);
#else
    (void)count;
    return sendmsg(fd, messages, 0);
#endif
}

/* Sends `size` bytes, and then a zero byte with a copy of `passed`.

   size: 1 to some hundred, which a socket takes as a whole or not at all.
   done: of these `size` + 1 bytes; 0 at first.  0, or -1 with errno set: after EINTR, call again. */
static inline int hesper_send_with_descriptor(int fd, const void *data, size_t size, int passed,
                                              size_t *done) {
    char byte = 0;
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec parts[2] = {{(void *)data, size}, {&byte, 1}};
    struct msghdr messages[2];
    memset(&control, 0, sizeof control);
    memset(messages, 0, sizeof messages);
    messages[0].msg_iov = &parts[0];
    messages[0].msg_iovlen = 1;
    messages[1].msg_iov = &parts[1];
    messages[1].msg_iovlen = 1;
    messages[1].msg_control = control.bytes;
    messages[1].msg_controllen = sizeof control.bytes;
    struct cmsghdr *head = CMSG_FIRSTHDR(&messages[1]);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &passed, sizeof passed);
    while (*done <= size) {
        unsigned first = *done == size;
        ssize_t sent = hesper_send_some(fd, messages + first, 2 - first);
        if (sent < 0)
            return -1;
        *done += (size_t)sent;
    }
    return 0;
}

/* Whether the other end of a pipe, which is written to here, is closed. */
static inline int hesper_is_left(int fd) {
    struct pollfd asked = {fd, 0, 0};
    return poll(&asked, 1, 0) == 1 && asked.revents & (POLLERR | POLLHUP);
}

/* Waits until there is something to read, at most `ns` (below a second). */
static inline void hesper_await(int fd, uint64_t ns) {
#ifdef __linux__
    struct pollfd wanted = {fd, POLLIN, 0};
    struct timespec t = {0, (long)ns};
    ppoll(&wanted, 1, &t, 0);
#else
    /* poll() counts in milliseconds. */
    fd_set wanted;
    struct timespec t = {0, (long)ns};
    FD_ZERO(&wanted);
    if (fd < FD_SETSIZE)
        FD_SET(fd, &wanted);
    pselect(fd < FD_SETSIZE ? fd + 1 : 0, &wanted, 0, 0, &t, 0);
#endif
}

#endif
