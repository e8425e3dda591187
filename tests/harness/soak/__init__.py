"""`make soak`: load for a long time, with faults and under continuous verification, on a stack of its own."""
