"""`make soak`: thousands of mixed requests and random faults, against a node of its own."""
