"""Hesper: a Venus host for virtual machines and containers."""
