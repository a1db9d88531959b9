"""Who gets to the screens: listening, passwords, certificates."""
