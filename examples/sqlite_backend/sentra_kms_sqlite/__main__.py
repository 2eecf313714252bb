"""`python -m sentra_kms_sqlite DATABASE NAME < MASTER`: make a KEK, or its next version."""

from __future__ import annotations

import sys

from sentra_kms import KeyMaterial

from .database import Database

_master = KeyMaterial(sys.stdin.buffer.read())
print(f"{sys.argv[2]}: version {Database(sys.argv[1], lambda: _master).add_version(sys.argv[2])}")
