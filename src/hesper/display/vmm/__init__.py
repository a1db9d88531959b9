"""The screens on a display of the VMM's own: QEMU's window, its SPICE or VNC server."""
