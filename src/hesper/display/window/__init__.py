"""A window on this machine's screen; wants the extra `window` (glfw and wgpu)."""
