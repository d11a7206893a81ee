"""A made-up model with eyes for llama.cpp's server: two GGUF files of under 1 MB together."""
