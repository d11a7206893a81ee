"""Reference pages of `doc/`, made from the files that define what they say: `make docs`."""
