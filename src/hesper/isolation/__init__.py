"""One context, one process: the supervisor, its workers, and the sockets clients come to."""
