"""A second implementation of the byte formats, written from `docs/spec/` alone."""
