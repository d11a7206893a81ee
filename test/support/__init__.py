"""What tests and benchmarks stand on: stand-ins for the chips, references, tiny models."""
