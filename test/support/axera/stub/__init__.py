"""A stub of the vendor's C libraries, built with the system compiler. No chip is needed."""
