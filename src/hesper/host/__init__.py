"""The host's Vulkan: finding drivers, choosing one, and masking it down to another's.

`drivers.choose_driver` is what a server calls; `profile.load_profile` what `--host-profile` names.
"""
