"""What a guest has in which containers use the GPU: an engine, a device they may open, an image.

A container has the GPU by its device (`podman run --device /dev/dri`), and Mesa's Venus driver by
its own image: no socket, no server.
"""

from __future__ import annotations

PACKAGES = (
    "podman",
    "crun",
    "netavark",
    "aardvark-dns",
    "nftables",
    # For containers of users without privileges: ids, a network, a session that counts them.
    "uidmap",
    "passt",
    "dbus-user-session",
    "catatonit",
)

# Who is in a container is in none of its user's groups; and systemd's own default is 0666, too.
_RULE = """SUBSYSTEM=="drm", KERNEL=="renderD*", MODE="0666"
"""

_MAKE_IMAGE = """#!/bin/sh
# Make the container image `vulkan` of what is installed: a shell, vulkaninfo, Mesa's Venus driver.
set -eu
manifest=$(ls /usr/share/vulkan/icd.d/virtio_icd*.json)
# Those that nothing is linked to, since they are opened by their names.
libraries=$(ls /usr/lib/*-linux-gnu/libvulkan_virtio.so /usr/lib/*-linux-gnu/libvulkan.so.1)
programs="/bin/sh /bin/ls /usr/bin/vulkaninfo"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir "$root/tmp" "$root/etc"
needed=$(ldd $programs $libraries | grep -o '/[^ :]*\\.so[^ :]*' | sort -u)
for file in $manifest $programs $libraries $needed; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
done
tar -C "$root" -c . | podman import --quiet - vulkan
echo "try: podman run --rm --device /dev/dri vulkan vulkaninfo --summary"
"""

MESSAGE = """Containers, too, if their image has Mesa: podman run --device /dev/dri IMAGE
To try it, vulkan-image makes such an image of what is installed.
"""

FILES = {
    "etc/udev/rules.d/60-render-for-all.rules": _RULE,
    "usr/local/bin/vulkan-image": _MAKE_IMAGE,
}
"""By their paths from the root."""
