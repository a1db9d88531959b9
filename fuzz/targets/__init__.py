"""One module a target: `INSTRUMENTED`, the packages whose coverage guides it, `run_one(data)`."""

TARGETS = ("context", "gpu", "vtest", "vnc", "web", "door", "settings", "recording")
