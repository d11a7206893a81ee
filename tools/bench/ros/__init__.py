"""What the figures about the node need: a client, and processes to measure beside it."""
