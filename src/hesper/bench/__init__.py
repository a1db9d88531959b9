"""Measuring: the same work on the bare driver, through Hesper, and through its peer."""
