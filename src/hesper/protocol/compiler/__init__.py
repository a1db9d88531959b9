"""Compiles the Vulkan registry to the model and to the kernel's tables.  Build time only."""
