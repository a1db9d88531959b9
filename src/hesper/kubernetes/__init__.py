"""Kubernetes: the GPU as a resource of a node, by a device plugin or by a DRA driver.

    messages       what is said to a kubelet, as protobuf messages
    rpc            gRPC services and calls over Unix sockets
    devices        the devices of this node: those of CDI files whose server answers
    device_plugin  the device plugin API, v1beta1
    dra            the kubelet's plugin registration, and dynamic resource allocation
    slices         what the scheduler is told: ResourceSlices
    api_server     the few calls of the API server that DRA needs

Both answer with names of CDI devices, which the container runtime looks up.  No cluster has run
this yet: `tests/kubernetes` has a kubelet and an API server that are strict.
"""
