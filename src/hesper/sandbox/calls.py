"""System calls by name and number, on each kind of processor that filters are made for.

The numbers are those of Linux' tables (`arch/x86/entry/syscalls/syscall_64.tbl` and
`include/uapi/asm-generic/unistd.h`), up to Linux 6.17; from 424 on they are the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What the kernel calls each kind of processor (`linux/audit.h`, AUDIT_ARCH_*)."""

COMMON_FROM = 424
"""The first number that all kinds of processors share."""


@functools.cache
def numbers(architecture: str) -> Mapping[str, int]:
    """Return the numbers by name; empty for a kind of processor that is not known."""
    if architecture not in AUDIT:
        return {}
    column = 1 + list(AUDIT).index(architecture)
    rows = (row.split() for row in _TABLE.replace("\n", ",").split(",") if row.strip())
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


@functools.cache
def _names(architecture: str) -> Mapping[int, str]:
    return {number: name for name, number in numbers(architecture).items()}


def call_name(number: int, architecture: str) -> str:
    """Say which call that is, as in `openat2 (437)`."""
    return f"{_names(architecture).get(number, 'a call')} ({number})"


# Name, number on x86_64, number on aarch64.
_TABLE = """
io_setup 206 0, io_destroy 207 1, io_submit 209 2, io_cancel 210 3, io_getevents 208 4
setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, getxattr 191 8, lgetxattr 192 9
fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13, removexattr 197 14
lremovexattr 198 15, fremovexattr 199 16, getcwd 79 17, lookup_dcookie 212 18, eventfd2 290 19
epoll_create1 291 20, epoll_ctl 233 21, epoll_pwait 281 22, dup 32 23, dup3 292 24, fcntl 72 25
inotify_init1 294 26, inotify_add_watch 254 27, inotify_rm_watch 255 28, ioctl 16 29
ioprio_set 251 30, ioprio_get 252 31, flock 73 32, mknodat 259 33, mkdirat 258 34
unlinkat 263 35, symlinkat 266 36, linkat 265 37, renameat 264 38, umount2 166 39, mount 165 40
pivot_root 155 41, nfsservctl 180 42, statfs 137 43, fstatfs 138 44, truncate 76 45
ftruncate 77 46, fallocate 285 47, faccessat 269 48, chdir 80 49, fchdir 81 50, chroot 161 51
fchmod 91 52, fchmodat 268 53, fchownat 260 54, fchown 93 55, openat 257 56, close 3 57
vhangup 153 58, pipe2 293 59, quotactl 179 60, getdents64 217 61, lseek 8 62, read 0 63
write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69
pwritev 296 70, sendfile 40 71, pselect6 270 72, ppoll 271 73, signalfd4 289 74
vmsplice 278 75, splice 275 76, tee 276 77, readlinkat 267 78, newfstatat 262 79, fstat 5 80
sync 162 81, fsync 74 82, fdatasync 75 83, sync_file_range 277 84, timerfd_create 283 85
timerfd_settime 286 86, timerfd_gettime 287 87, utimensat 280 88, acct 163 89, capget 125 90
capset 126 91, personality 135 92, exit 60 93, exit_group 231 94, waitid 247 95
set_tid_address 218 96, unshare 272 97, futex 202 98, set_robust_list 273 99
get_robust_list 274 100, nanosleep 35 101, getitimer 36 102, setitimer 38 103
kexec_load 246 104, init_module 175 105, delete_module 176 106, timer_create 222 107
timer_gettime 224 108, timer_getoverrun 225 109, timer_settime 223 110, timer_delete 226 111
clock_settime 227 112, clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115
syslog 103 116, ptrace 101 117, sched_setparam 142 118, sched_setscheduler 144 119
sched_getscheduler 145 120, sched_getparam 143 121, sched_setaffinity 203 122
sched_getaffinity 204 123, sched_yield 24 124, sched_get_priority_max 146 125
sched_get_priority_min 147 126, sched_rr_get_interval 148 127, restart_syscall 219 128
kill 62 129, tkill 200 130, tgkill 234 131, sigaltstack 131 132, rt_sigsuspend 130 133
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigpending 127 136, rt_sigtimedwait 128 137
rt_sigqueueinfo 129 138, rt_sigreturn 15 139, setpriority 141 140, getpriority 140 141
reboot 169 142, setregid 114 143, setgid 106 144, setreuid 113 145, setuid 105 146
setresuid 117 147, getresuid 118 148, setresgid 119 149, getresgid 120 150, setfsuid 122 151
setfsgid 123 152, times 100 153, setpgid 109 154, getpgid 121 155, getsid 124 156
setsid 112 157, getgroups 115 158, setgroups 116 159, uname 63 160, sethostname 170 161
setdomainname 171 162, getrlimit 97 163, setrlimit 160 164, getrusage 98 165, umask 95 166
prctl 157 167, getcpu 309 168, gettimeofday 96 169, settimeofday 164 170, adjtimex 159 171
getpid 39 172, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176
getegid 108 177, gettid 186 178, sysinfo 99 179, mq_open 240 180, mq_unlink 241 181
mq_timedsend 242 182, mq_timedreceive 243 183, mq_notify 244 184, mq_getsetattr 245 185
msgget 68 186, msgctl 71 187, msgrcv 70 188, msgsnd 69 189, semget 64 190, semctl 66 191
semtimedop 220 192, semop 65 193, shmget 29 194, shmctl 31 195, shmat 30 196, shmdt 67 197
socket 41 198, socketpair 53 199, bind 49 200, listen 50 201, accept 43 202, connect 42 203
getsockname 51 204, getpeername 52 205, sendto 44 206, recvfrom 45 207, setsockopt 54 208
getsockopt 55 209, shutdown 48 210, sendmsg 46 211, recvmsg 47 212, readahead 187 213
brk 12 214, munmap 11 215, mremap 25 216, add_key 248 217, request_key 249 218, keyctl 250 219
clone 56 220, execve 59 221, mmap 9 222, fadvise64 221 223, swapon 167 224, swapoff 168 225
mprotect 10 226, msync 26 227, mlock 149 228, munlock 150 229, mlockall 151 230
munlockall 152 231, mincore 27 232, madvise 28 233, remap_file_pages 216 234, mbind 237 235
get_mempolicy 239 236, set_mempolicy 238 237, migrate_pages 256 238, move_pages 279 239
rt_tgsigqueueinfo 297 240, perf_event_open 298 241, accept4 288 242, recvmmsg 299 243
wait4 61 260, prlimit64 302 261, fanotify_init 300 262, fanotify_mark 301 263
name_to_handle_at 303 264, open_by_handle_at 304 265, clock_adjtime 305 266, syncfs 306 267
setns 308 268, sendmmsg 307 269, process_vm_readv 310 270, process_vm_writev 311 271
kcmp 312 272, finit_module 313 273, sched_setattr 314 274, sched_getattr 315 275
renameat2 316 276, seccomp 317 277, getrandom 318 278, memfd_create 319 279, bpf 321 280
execveat 322 281, userfaultfd 323 282, membarrier 324 283, mlock2 325 284
copy_file_range 326 285, preadv2 327 286, pwritev2 328 287, pkey_mprotect 329 288
pkey_alloc 330 289, pkey_free 331 290, statx 332 291, io_pgetevents 333 292, rseq 334 293
kexec_file_load 320 294, pidfd_send_signal 424 424, io_uring_setup 425 425
io_uring_enter 426 426, io_uring_register 427 427, open_tree 428 428, move_mount 429 429
fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, pidfd_open 434 434
clone3 435 435, close_range 436 436, openat2 437 437, pidfd_getfd 438 438, faccessat2 439 439
process_madvise 440 440, epoll_pwait2 441 441, mount_setattr 442 442, quotactl_fd 443 443
landlock_create_ruleset 444 444, landlock_add_rule 445 445, landlock_restrict_self 446 446
memfd_secret 447 447, process_mrelease 448 448, futex_waitv 449 449
set_mempolicy_home_node 450 450, cachestat 451 451, fchmodat2 452 452, map_shadow_stack 453 453
futex_wake 454 454, futex_wait 455 455, futex_requeue 456 456, statmount 457 457
listmount 458 458, lsm_get_self_attr 459 459, lsm_set_self_attr 460 460
lsm_list_modules 461 461, mseal 462 462, setxattrat 463 463, getxattrat 464 464
listxattrat 465 465, removexattrat 466 466, open_tree_attr 467 467, file_getattr 468 468
file_setattr 469 469, open 2 -, stat 4 -, lstat 6 -, poll 7 -, access 21 -, pipe 22 -
select 23 -, dup2 33 -, pause 34 -, alarm 37 -, fork 57 -, vfork 58 -, getdents 78 -
rename 82 -, mkdir 83 -, rmdir 84 -, creat 85 -, link 86 -, unlink 87 -, symlink 88 -
readlink 89 -, chmod 90 -, chown 92 -, lchown 94 -, getpgrp 111 -, utime 132 -, mknod 133 -
uselib 134 -, ustat 136 -, sysfs 139 -, modify_ldt 154 -, _sysctl 156 -, arch_prctl 158 -
iopl 172 -, ioperm 173 -, create_module 174 -, get_kernel_syms 177 -, query_module 178 -
getpmsg 181 -, putpmsg 182 -, afs_syscall 183 -, tuxcall 184 -, security 185 -, time 201 -
set_thread_area 205 -, get_thread_area 211 -, epoll_create 213 -, epoll_ctl_old 214 -
epoll_wait_old 215 -, epoll_wait 232 -, utimes 235 -, vserver 236 -, inotify_init 253 -
futimesat 261 -, signalfd 282 -, eventfd 284 -, uretprobe 335 -
"""
