"""Tenant keys: rings, their store and wrapping, messages, and the managers over them."""
