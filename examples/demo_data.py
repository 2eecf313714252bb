"""Made-up patients of two clinics, the same ones on every run, and the CSV they are kept in."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path

COLUMNS = ("id", "clinic", "city", "name", "email", "phone", "birth_date", "national_id", "iban")
SENSITIVE = ("name", "email", "phone", "birth_date", "national_id", "iban")

_SEED = 20261101
_GIVEN = (
    "Zoë", "Amara", "Łukasz", "Priya", "José", "Ingrid", "Mehmet", "Chiara", "Kwame", "Aoife",
    "Noah", "Mei", "Søren", "Fatima", "Émile", "Katarína", "Ravi", "Hana", "Tomás", "Olivia",
)  # fmt: skip
_FAMILY = (
    "Lindqvist", "Okafor", "Wójcik", "Raman", "Núñez", "Haugen", "Çelik", "Moretti", "Mensah",
    "O’Sullivan", "Becker", "Zhang", "Kjær", "Haddad", "Lefèvre", "Novák", "Iyer", "Sato", "Vega",
)  # fmt: skip
_CITIES = ("Göteborg", "Łódź", "Bilbao", "Porto", "Cork", "Lyon", "Graz", "Brno", "Trieste")


def people(clinics: tuple[str, ...], first: int, last: int) -> Iterator[dict[str, str]]:
    """Yield one row for each id from `first` to `last`, the clinics taking turns."""
    for number in range(first, last + 1):
        pick = random.Random(_SEED + number)
        given, family = pick.choice(_GIVEN), pick.choice(_FAMILY)
        born = date(1931, 1, 1) + timedelta(days=pick.randrange(33_000))
        yield {
            "id": str(number),
            "clinic": clinics[number % len(clinics)],
            "city": pick.choice(_CITIES),
            "name": f"{given} {family}",
            "email": f"{given}.{family}{number}@example.org".lower().replace("’", ""),
            "phone": f"+46 70 {pick.randrange(10**7):07d}",
            "birth_date": born.isoformat(),
            "national_id": f"{born:%y%m%d}-{pick.randrange(10**4):04d}",
            "iban": _iban("DE", f"{pick.randrange(10**18):018d}"),
        }


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def write_rows(path: Path, rows: Iterable[dict[str, str]], *, append: bool = False) -> int:
    """Write rows to a CSV file, or add them to its end; return how many."""
    count = 0
    with path.open("a" if append else "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not append:
            writer.writeheader()
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def _iban(country: str, account: str) -> str:
    """Return an account number with the check digits that make it a valid IBAN."""
    digits = "".join(str(int(character, 36)) for character in account + country)
    return f"{country}{98 - int(digits + '00') % 97:02d}{account}"
