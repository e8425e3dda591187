"""`make bench`: measures, on a stack of its own that it starts and stops."""
