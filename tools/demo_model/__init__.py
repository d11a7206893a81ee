"""The demo model: its world, training, scores and export."""
