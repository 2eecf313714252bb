"""KEKs and key rings in one SQLite database."""
