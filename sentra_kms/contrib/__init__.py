"""Secrets where other libraries expect them; each module needs the extra that is named like it."""
