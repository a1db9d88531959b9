"""Fuzz targets: what a guest, a worker or a viewer sends, made of bytes that a fuzzer chooses.

`scripts/fuzz` builds what they need and runs them; docs/lab/fuzzing.md says how they work.
"""
