"""What a context is told, for who writes it to a file; `tape.pyi`."""

from hesper.kernel.core.tape cimport Tape as TapeCore


cdef class Tape:
    cdef TapeCore *core
