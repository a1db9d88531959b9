"""The compiled kernel: ring, decode, encode, objects, calls."""
