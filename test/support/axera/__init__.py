"""A test bench for the Axera engine: made-up axmodel sets, and an `axengine` that runs them."""
