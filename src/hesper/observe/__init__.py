"""Watching Hesper at work: metrics and the figures of the web page."""
