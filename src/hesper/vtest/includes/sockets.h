/* What descriptors do beside bytes: be passed, be waited for, be left. */
#ifndef HESPER_SOCKETS_H
#define HESPER_SOCKETS_H

#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "platform.h"

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

#endif
