"""Vision towers: one module for each way in which they are compiled."""
