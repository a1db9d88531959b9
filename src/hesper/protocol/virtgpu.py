"""What Venus has from virtio-gpu, whatever the frontend: timelines, and how blobs are used.

Source: VIRTIO 1.3, section 5.7.6.8 "Device Operation: controlq".
"""

from __future__ import annotations

from enum import IntFlag

MAX_TIMELINES = 64
"""Timelines (ring_idx 0 to 63) a context has, as virglrenderer and Linux have them.

0 is the CPU's.
"""


class BlobFlag(IntFlag):
    """What a blob is used for (VIRTIO_GPU_BLOB_FLAG_USE_*)."""

    USE_MAPPABLE = 1 << 0
    USE_SHAREABLE = 1 << 1
    USE_CROSS_DEVICE = 1 << 2


BLOB_FLAGS = int(BlobFlag.USE_MAPPABLE | BlobFlag.USE_SHAREABLE | BlobFlag.USE_CROSS_DEVICE)

MAP_CACHE_CACHED = 1
"""VIRTIO_GPU_MAP_CACHE_CACHED: how guests map blobs, whose shared memory is ordinary memory."""

MAP_CACHES = frozenset({1, 2, 3})
"""VIRTIO_GPU_MAP_CACHE_CACHED, _UNCACHED and _WC: all that a guest may be told."""
