"""What the Axera figures are measured with."""
