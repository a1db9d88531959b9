"""Scanouts and where they are shown: VNC, browser, window, file."""
