"""One module a parser; each has `run(data)`, which raises if the parser does what it may not."""
