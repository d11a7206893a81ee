"""What makes, measures and sets up; nothing of it is installed. The map is in README.md."""
