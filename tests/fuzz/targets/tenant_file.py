"""Tenant ids, and names of files in the key directory: each stands for the other or for nothing."""

from __future__ import annotations

import re

from sentra_kms.backends import ring_files
from sentra_kms.backends.ring_files import file_name, tenant_of
from sentra_kms.errors import MalformedInput
from sentra_kms.tenant import check_tenant, is_tenant
from tests.fuzz import text_of
from tests.reader import reader

FILE = re.compile(r"(?a:[a-z0-9=._-]{1,240})")


def run(data: bytes) -> None:
    """Try one text as a tenant id and as a file's name."""
    text = text_of(data)
    tenant(text)
    for name in (text, text + ".ring"):
        found = tenant_of(name)
        if found is not None:
            assert is_tenant(found)
            assert file_name(found) + ".ring" == name


def tenant(text: str) -> None:
    """Try one text as a tenant id."""
    try:
        reader.check_tenant(text)
    except reader.MalformedInput:
        valid = False
    else:
        valid = True
    assert is_tenant(text) is valid
    try:
        assert check_tenant(text) == text
    except MalformedInput as error:
        assert not valid
        assert error.message.isascii()
        assert error.message.isprintable()
        assert len(error.message) < 1500
        return
    assert valid
    name = file_name(text)
    assert FILE.fullmatch(name)
    assert name.casefold() == name
    assert name + ".ring" == reader.file_name(text)
    assert tenant_of(name + ".ring") == text
    for other, rule in (
        (f".{name}.lock", ring_files._LOCK),
        (f".{name}.0a1b2c3d.tmp", ring_files._LEFT_BEHIND),
    ):
        assert len(other) <= 254
        assert re.fullmatch(rule, other)
        assert tenant_of(other) is None
