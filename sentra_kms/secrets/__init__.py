"""Secrets by reference: declared, fetched, composed, cached, watched."""
