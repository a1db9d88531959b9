"""Virtual machines: the GPU device with its displays, QEMU beside it, images for guests."""
