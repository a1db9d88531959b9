"""Containers that share the GPU: what a container runtime has to add to one.

    cdi         the device's specification, for podman, Docker, containerd and CRI-O
    driver_set  Mesa's Venus driver of this machine, with what it needs, in a folder of its own
    injection   which of it a container's image lacks, and whether it would work there
    hook        what the runtime calls before a container starts
    elf, rootfs libraries, and a container's file system, read from outside
    inside      paths followed in it while others may change it

The hook is started with each container, by whatever Python Hesper is installed for: what it imports
is the standard library's, and little of that.
"""
