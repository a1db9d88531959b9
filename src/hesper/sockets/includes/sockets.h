/* What descriptors do beside bytes: be passed, be waited for, be left. */
#ifndef HESPER_SOCKETS_H
#define HESPER_SOCKETS_H

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "platform.h"

#define HESPER_MOST_PASSED 64

/* Room for what goes along with a message. */
union hesper_control {
    struct cmsghdr aligned;
    char bytes[CMSG_SPACE(HESPER_MOST_PASSED * sizeof(int))];
};

/* Makes a message of `size` bytes, with a copy of the descriptor `passed` unless that is -1. */
static inline void hesper_pack(struct msghdr *message, union hesper_control *control,
                               struct iovec *part, const void *data, size_t size, int passed) {
    memset(message, 0, sizeof *message);
    part->iov_base = (void *)data;
    part->iov_len = size;
    message->msg_iov = part;
    message->msg_iovlen = 1;
    if (passed < 0)
        return;
    memset(control->bytes, 0, CMSG_SPACE(sizeof passed));
    message->msg_control = control->bytes;
    message->msg_controllen = CMSG_SPACE(sizeof passed);
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(head), &passed, sizeof passed);
}

/* Sends `size` bytes, and then a zero byte with a copy of `passed`.

   size: 1 to some hundred, which a socket takes as a whole or not at all.
   done: of these `size` + 1 bytes; 0 at first.  0, or -1 with errno set: after EINTR, call again. */
static inline int hesper_send_before_descriptor(int fd, const void *data, size_t size, int passed,
                                                size_t *done) {
    union hesper_control control;
    struct iovec parts[2];
    struct msghdr messages[2];
    hesper_pack(&messages[0], &control, &parts[0], data, size, -1);
    hesper_pack(&messages[1], &control, &parts[1], "", 1, passed);
    while (*done <= size) {
        unsigned first = *done == size;
        ssize_t sent = hesper_send_some(fd, messages + first, 2 - first);
        if (sent < 0)
            return -1;
        *done += (size_t)sent;
    }
    return 0;
}

/* Sends `size` bytes, whose first takes a copy of `passed` along unless that is -1.

   Goes on after signals.  0, or -1 with errno set. */
static inline int hesper_send_whole(int fd, const void *data, size_t size, int passed) {
    union hesper_control control;
    struct iovec part;
    struct msghdr message;
    while (size) {
        hesper_pack(&message, &control, &part, data, size, passed);
        ssize_t sent = sendmsg(fd, &message, 0);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -1;
        data = (const char *)data + sent;
        size -= (size_t)sent;
        passed = -1;
    }
    return 0;
}

/* Receives up to `size` bytes, and adds descriptors, which children do not inherit, to the `*count`
   in `passed`, which has room for HESPER_MOST_PASSED.

   Like recv(); with errno EMSGSIZE where there is no room for a descriptor: it is lost. */
static inline ssize_t hesper_receive(int fd, void *data, size_t size, int flags, int *passed,
                                     unsigned *count) {
    union hesper_control control;
    struct iovec part = {data, size};
    struct msghdr message;
    int lost;
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
#ifdef MSG_CMSG_CLOEXEC
    flags |= MSG_CMSG_CLOEXEC;
#endif
    ssize_t got = recvmsg(fd, &message, flags);
    if (got < 0)
        return -1;
    lost = message.msg_flags & MSG_CTRUNC;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < fds; i++) {
            int one;
            memcpy(&one, CMSG_DATA(c) + i * sizeof one, sizeof one);
            if (*count == HESPER_MOST_PASSED) {
                close(one);
                lost = 1;
                continue;
            }
#ifndef MSG_CMSG_CLOEXEC
            fcntl(one, F_SETFD, FD_CLOEXEC);
#endif
            passed[(*count)++] = one;
        }
    }
    if (lost) {
        errno = EMSGSIZE;
        return -1;
    }
    return got;
}

/* Whether the other end of a pipe, which is written to here, is closed. */
static inline int hesper_is_left(int fd) {
    /* Some systems (macOS) say nothing of a descriptor of which nothing is asked. */
    struct pollfd asked = {fd, POLLOUT, 0};
    return poll(&asked, 1, 0) == 1 && asked.revents & (POLLERR | POLLHUP);
}

#endif
