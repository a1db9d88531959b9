"""Errors in words, for the kernel's other modules."""

from hesper.kernel.core.state cimport Stream


cdef str describe(Stream *s)
