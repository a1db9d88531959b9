"""vhost-user and virtqueues: the transport of a virtio device, whatever the device."""
