"""Vectors of the byte formats, and the modules that make them."""
