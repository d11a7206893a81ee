"""Ways to get prompts into the cache: one module for each way in which blocks are compiled."""
