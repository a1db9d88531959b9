"""Recordings of what contexts were told: written by workers, inspected, replayed.

`chunks` and `records` are the file's two layers (docs/recordings.md); `recorder` writes it.
"""
