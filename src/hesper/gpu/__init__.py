"""The virtio-gpu device with Venus contexts."""
