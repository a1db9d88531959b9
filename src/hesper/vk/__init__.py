"""Vulkan's numbers, by the names that the registry gives them: `enumerants` is made by the build.

Nothing here imports anything: what probes a driver in a process of its own needs it, too.
"""
