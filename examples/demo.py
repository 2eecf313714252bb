"""See sentra_kms work: two clinics, one table of patients, each clinic's fields under its own key.

`make demo`, or `python examples/demo.py [--keep]`. All of it happens in a temporary
directory. What it claims it has checked: the first claim that does not hold ends it with exit
code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from demo_config import ENVIRONMENT, Configuration
from demo_data import SENSITIVE, people, read_rows, write_rows
from demo_screen import ClaimBrokenError, Screen
from demo_table import Cost, KekCounter, Row, message_in, place, seal, unseal, version_of

import sentra_kms

CLINICS = ("lakeview", "northgate")
ROWS = 3_000  # before the rotation
LATER = 300  # after it
OVERHEAD = 96  # bytes that a message is longer than its plaintext


class Demo:
    """The steps, in order; each leaves its files to the next."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._screen = screen
        self._plain = folder / "patients.csv"
        self._sealed = folder / "patients.encrypted.csv"
        self._config = Configuration(folder)
        self._keks = KekCounter()

    def run(self) -> None:
        """Do all of it."""
        self._make_master_key()
        self._create_tenants()
        self._encrypt()
        self._rotate()
        self._decrypt()
        self._refuse()
        self._replace_master_key()

    def _make_master_key(self) -> None:
        self._screen.step(
            "Make a master key and name it in a configuration",
            "The key-encryption key (KEK) local:2025 is derived from it.",
        )
        self._new_master_key("2025")
        self._config.write("2025")
        self._screen.quote(self._config.text())

    def _create_tenants(self) -> None:
        self._screen.step(
            "Create two tenants, each with a key of its own",
            "Tenant keys are stored in key rings, only as wrapped by the KEK.",
        )
        with self._load() as kms:
            rings = [kms.keys.create(clinic) for clinic in CLINICS]
        keys = self._folder / "keys"
        for ring in rings:
            file = keys / f"{ring.tenant}.ring"
            self._screen.line(
                f"keys/{file.name}",
                f"version {ring.primary}, wrapped by {ring.versions[0].wraps[0].kek}; "
                f"{file.stat().st_size} bytes",
            )
        self._screen.claim(
            "the directory has mode 700, each key ring 600",
            _mode(keys) == 0o700
            and all(_mode(keys / f"{clinic}.ring") == 0o600 for clinic in CLINICS),
        )
        self._screen.claim("that took 2 KEK operations, both wraps", self._keks.take() == (2, 0))

    def _encrypt(self) -> None:
        count = write_rows(self._plain, people(CLINICS, 1, ROWS))
        self._screen.step(
            f"Encrypt {count:,} patients, {len(SENSITIVE)} fields each",
            "Each field under its clinic's key, bound to its table, column and id.",
        )
        cost = Cost()
        with self._load() as kms:
            written = write_rows(self._sealed, seal(kms, read_rows(self._plain), cost))
        before, after = next(read_rows(self._plain)), next(read_rows(self._sealed))
        self._screen.row("", self._plain.name, self._sealed.name)
        for column in before:
            self._screen.row(column, before[column], after[column])
        self._show_cost(cost)
        self._screen.line("size", f"{_size(self._plain)} became {_size(self._sealed)} with base64")
        self._screen.claim(
            f"{written:,} rows were encrypted, and none shows any of its sensitive values",
            count == written == ROWS and self._nothing_shows(),
        )
        self._screen.claim(
            f"each field grew by exactly {OVERHEAD} bytes",
            cost.message_bytes == cost.plain_bytes + OVERHEAD * cost.fields,
        )
        self._screen.claim(
            f"{cost.fields:,} fields took 2 KEK operations: one unwrap for each tenant",
            self._keks.take() == (0, 2),
        )

    def _rotate(self) -> None:
        clinic = CLINICS[0]
        self._screen.step(
            f"Rotate the key of {clinic}, and add {LATER} patients",
            "A new key version, for what is written from now on; nothing is rewritten.",
        )
        with self._load() as kms:
            keys = kms.keys.tenant(clinic)
            first = version_of(keys.encrypt(b"before"))
            ring = kms.keys.rotate(clinic)
            self._screen.claim(
                "it has versions 1 and 2, and a handle made before now writes under 2",
                [version.version for version in ring.versions] == [1, 2]
                and ring.primary == 2
                and (first, version_of(keys.encrypt(b"after"))) == (1, 2),
            )
            later = list(people(CLINICS, ROWS + 1, ROWS + LATER))
            write_rows(self._plain, later, append=True)
            write_rows(self._sealed, seal(kms, later, Cost()), append=True)
        for clinic in CLINICS:
            versions = Counter(
                version_of(message_in(row, SENSITIVE[0]))
                for row in read_rows(self._sealed)
                if row["clinic"] == clinic
            )
            self._screen.line(
                clinic,
                ", ".join(f"{rows:,} rows under version {v}" for v, rows in versions.items()),
            )
        self._screen.claim(
            f"all new rows of {CLINICS[0]} are under version 2, and no others",
            all(_is_under_its_version(row) for row in read_rows(self._sealed)),
        )
        self._keks.take()

    def _decrypt(self) -> None:
        self._screen.step(
            "Read the whole table back, rows of both versions",
            "A message names its key version, so there is nothing to choose or to try.",
        )
        cost = Cost()
        with self._load() as kms:
            self._screen.claim(
                f"all {ROWS + LATER:,} rows are what they were, field by field",
                self._opens(kms, cost),
            )
        self._show_cost(cost)
        self._screen.claim(
            f"{cost.fields:,} fields took 3 KEK operations: one unwrap for each key version",
            self._keks.take() == (0, 3),
        )

    def _refuse(self) -> None:
        self._screen.step(
            "Try what must not work",
            "A message opens for its own tenant, under its own context, unchanged.",
        )
        sealed = [row for row in read_rows(self._sealed) if row["clinic"] == CLINICS[0]]
        row, other = sealed[:2]
        message, context = message_in(row, "iban"), place(row, "iban")
        with self._load() as kms:
            keys = kms.keys.tenant(CLINICS[0])
            stranger = kms.keys.tenant(CLINICS[1])
            changed = _flipped(message, len(message) - 1)
            attempts = {
                f"{CLINICS[1]} is refused a row of {CLINICS[0]}": partial(
                    stranger.decrypt, message, context
                ),
                "an account number moved to another patient is refused": partial(
                    keys.decrypt, message, place(other, "iban")
                ),
                "an account number moved to another column is refused": partial(
                    keys.decrypt, message, place(row, "phone")
                ),
                "a field whose last byte was changed is refused": partial(
                    keys.decrypt, changed, context
                ),
            }
            errors = [
                self._screen.refusal(claim, sentra_kms.DecryptionFailed, attempt)
                for claim, attempt in attempts.items()
            ]
            self._screen.claim(
                "all four got the same answer, which does not say why:",
                len({str(error) for error in errors}) == 1,
            )
            self._screen.said(errors[0])
            self._screen.claim(
                f"each of its {len(message)} bytes, changed one at a time, is refused as well",
                all(
                    _is_refused(kms, _flipped(message, index), context)
                    for index in range(len(message))
                ),
            )
            self._screen.claim(
                "unchanged and in its place it opens",
                keys.decrypt(message, context=context).decode() == self._original(row)["iban"],
            )
        self._keks.take()

    def _replace_master_key(self) -> None:
        self._screen.step(
            "Replace the master key, and retire the old one",
            "The tenant keys stay what they are: only their wraps are made anew.",
        )
        before = _digest(self._sealed)
        self._new_master_key("2026")
        self._config.write("2026", unwrap_with=["2025"])
        self._screen.quote(self._config.text("demo.keys"))
        with self._load() as kms:
            rings = [kms.keys.rewrap(clinic) for clinic in kms.keys.tenants()]
        self._screen.claim(
            f"all {len(rings)} key rings are rewrapped under local:2026 and nothing else",
            [ring.tenant for ring in rings] == list(CLINICS)
            and {wrap.kek for ring in rings for v in ring.versions for wrap in v.wraps}
            == {"local:2026"},
        )
        self._screen.claim(
            "that took 3 unwraps, 3 wraps and a try of each, and no row was written anew",
            self._keks.take() == (3, 6) and _digest(self._sealed) == before,
        )
        self._config.write("2025")
        with self._load() as kms:
            errors = [
                self._screen.refusal(
                    f"the old master key alone no longer opens {clinic}",
                    sentra_kms.RingRejected,
                    partial(kms.keys.encrypt, clinic, b""),
                )
                for clinic in CLINICS
            ]
        self._screen.said(errors[-1])
        self._config.write("2026")
        retired = self._config.master_key("2025")
        retired.unlink()
        with self._load() as kms:
            self._screen.claim(
                "the old master key is deleted, and every row still opens as it was",
                not retired.exists() and self._opens(kms, Cost()),
            )

    def _show_cost(self, cost: Cost) -> None:
        for label, text in cost.lines():
            self._screen.line(label, text)

    def _load(self) -> sentra_kms.KMS:
        """Load anew, with nothing cached, as another process would."""
        return sentra_kms.load(self._config.path, environment=ENVIRONMENT)

    def _new_master_key(self, name: str) -> None:
        path = self._config.make_master_key(name)
        self._screen.line(
            f"secrets/{path.name}", f"32 random bytes in base64, file mode {_mode(path):o}"
        )

    def _opens(self, kms: sentra_kms.KMS, cost: Cost) -> bool:
        """Whether the whole encrypted table opens to exactly the original one."""
        opened = list(unseal(kms, read_rows(self._sealed), cost))
        return opened == list(read_rows(self._plain)) and len(opened) == ROWS + LATER

    def _nothing_shows(self) -> bool:
        """Whether no row of the encrypted table holds one of its sensitive values."""
        return not any(
            row[column] in ",".join(sealed.values())
            for row, sealed in zip(read_rows(self._plain), read_rows(self._sealed), strict=True)
            for column in SENSITIVE
        )

    def _original(self, sealed: Row) -> Row:
        return next(row for row in read_rows(self._plain) if row["id"] == sealed["id"])


def _is_under_its_version(row: Row) -> bool:
    """Whether all fields of a row are under the version that was primary when it was written."""
    expected = 2 if row["clinic"] == CLINICS[0] and int(row["id"]) > ROWS else 1
    return all(version_of(message_in(row, column)) == expected for column in SENSITIVE)


def _flipped(message: bytes, index: int) -> bytes:
    return message[:index] + bytes([message[index] ^ 1]) + message[index + 1 :]


def _is_refused(kms: sentra_kms.KMS, message: bytes, context: dict[str, str]) -> bool:
    try:
        kms.keys.decrypt(CLINICS[0], message, context=context)
    except sentra_kms.KMSError:
        return True
    return False


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _next_steps(screen: Screen, kept: Path | None) -> None:
    tool = _command_line()
    screen.heading("What to do next")
    screen.advice(f"{tool} init", "write a configuration with comments, to adapt")
    screen.advice(f"{tool} keygen", "make a master key")
    screen.advice(f"{tool} tenant create acme", "make a tenant's key ring")
    screen.advice("docs/quickstart.md", "from nothing to an encrypted field, in Python too")
    screen.advice("docs/operations.md", "rotation, backups, and what each error asks of you")
    if kept is not None:
        screen.heading("Everything is still there; to look at it:")
        screen.quote(
            f"cd {shlex.quote(str(kept))}\n"
            f"SENTRA_KMS_ENV={ENVIRONMENT} {os.path.abspath(tool) if '/' in tool else tool} "
            f"tenant show {CLINICS[0]}"
        )


def _command_line() -> str:
    """Return how to call the command line that belongs to this Python, from here."""
    command = Path(sys.executable).with_name("sentra-kms")
    if not command.exists():
        return "sentra-kms"
    here = Path.cwd()
    return str(command.relative_to(here) if command.is_relative_to(here) else command)


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description="See sentra_kms work, in a temporary directory.")
    parser.add_argument("--keep", action="store_true", help="leave the directory there")
    keep = parser.parse_args().keep
    screen = Screen()
    folder = Path(tempfile.mkdtemp(prefix="sentra-kms-demo-"))
    try:
        screen.heading(
            f"sentra_kms {sentra_kms.__version__}, at work in {folder}"
            + ("" if keep else " (removed at the end)")
        )
        Demo(folder, screen).run()
        _next_steps(screen, folder if keep else None)
    except ClaimBrokenError as broken:
        screen.failure(f"This should hold, and does not: {broken}")
        return 1
    finally:
        if not keep:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
