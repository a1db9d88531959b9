"""Messages over stream sockets, compiled: what the frontends have in common."""
