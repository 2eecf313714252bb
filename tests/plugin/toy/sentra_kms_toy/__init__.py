"""KEKs and key rings in the process's memory."""
