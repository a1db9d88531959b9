/* What descriptors do beside bytes: be passed, be waited for, be left. */
#ifndef HESPER_SOCKETS_H
#define HESPER_SOCKETS_H

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>

/* Sends one zero byte with a copy of `passed`; 0, or -1 with errno set. */
static inline int hesper_send_descriptor(int fd, int passed) {
    char byte = 0;
    struct iovec part = {&byte, 1};
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &passed, sizeof passed);
    while (sendmsg(fd, &message, 0) < 0)
        if (errno != EINTR)
            return -1;
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
