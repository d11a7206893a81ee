"""What the figures of work ahead of questions are measured with."""
