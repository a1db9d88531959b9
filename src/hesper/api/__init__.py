"""What programs see of Hesper, by way of the six names of `hesper`.

    vtest       VtestServer: clients on a Unix socket: containers, programs on this machine
    gpu         GpuDevice: the GPU of one virtual machine
    server      what both have in common
    drivers     drivers: the host's Vulkan drivers, and which one serves guests best
    diagnosis   diagnose: what is there, what is missing, what mends it
    client      which variables lead a program's Vulkan to a server
    commands    how each command of the protocol is served

The command line, virtual machines (`hesper.vm`) and metrics (`hesper.observe`) are made of these
and reach no deeper.

Nothing here takes signals, wants the main thread, changes the environment, or sets logging up.
"""
