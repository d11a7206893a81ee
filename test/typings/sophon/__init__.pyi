"""Sophgo's Python package; only `sophon.sail` is used."""
