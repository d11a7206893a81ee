"""A stand-in for Sophgo's Python package; see `sophon.sail`."""
