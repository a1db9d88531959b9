"""A virtio-gpu device in a process of its own, for a VMM that speaks vhost-user."""
