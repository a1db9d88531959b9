"""Passwords that are made up."""

from __future__ import annotations

import secrets

ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Letters and digits that nobody takes for another: 32, so five bits each."""
LENGTH = 8
"""VNC's own authentication looks at no more."""


def make_password() -> str:
    """Return a password of 40 random bits; `attempts` bounds how often it can be guessed at."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
