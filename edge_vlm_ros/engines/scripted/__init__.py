"""The scripted engine: no weights; answers, delays and faults come from a YAML script."""
