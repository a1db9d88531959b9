/* The part of virtio-gpu's kernel interface that these tests use.
 *
 * Source of the numbers and layouts: Linux, include/uapi/drm/virtgpu_drm.h, of version 6.1; the
 * header that libdrm installs has no blobs. */
#ifndef VIRTGPU_IOCTLS_H
#define VIRTGPU_IOCTLS_H

#include <drm.h>
#include <stdint.h>

struct map_blob {
    uint64_t offset;
    uint32_t handle, padding;
};

struct execbuffer {
    uint32_t flags, size;
    uint64_t commands, handles;
    uint32_t handle_count;
    int32_t fence_fd;
    uint32_t ring_idx, syncobj_stride, in_syncobj_count, out_syncobj_count;
    uint64_t in_syncobjs, out_syncobjs;
};

struct create_blob {
    uint32_t memory, flags, handle, resource;
    uint64_t size;
    uint32_t padding, command_size;
    uint64_t commands, blob_id;
};

struct context_parameter {
    uint64_t parameter, value;
};

struct context_init {
    uint32_t count, padding;
    uint64_t parameters;
};

#define BLOB_HOST3D 2
#define BLOB_MAPPABLE 1
#define EXECBUFFER_FENCE_OUT 2
#define EXECBUFFER_RING_IDX 4
#define CONTEXT_CAPSET_ID 1
#define CONTEXT_NUM_RINGS 2

#define IOCTL_MAP DRM_IOWR(DRM_COMMAND_BASE + 0x01, struct map_blob)
#define IOCTL_EXECBUFFER DRM_IOWR(DRM_COMMAND_BASE + 0x02, struct execbuffer)
#define IOCTL_CREATE_BLOB DRM_IOWR(DRM_COMMAND_BASE + 0x0a, struct create_blob)
#define IOCTL_CONTEXT_INIT DRM_IOWR(DRM_COMMAND_BASE + 0x0b, struct context_init)

#endif
