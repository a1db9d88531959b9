"""The vtest front door: Venus clients on this machine, over a Unix stream socket."""
