"""H.264 for what moves, by the `ffmpeg` that is installed: found, confined, fed and read."""
