"""The built-in backends, one module a type; each is imported only when it is needed."""
