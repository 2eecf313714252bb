"""Properties of messages: each comes back, and no edit, cut, other context or tenant opens it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentra_kms.config import read_settings
from sentra_kms.context import Context, encode_context
from sentra_kms.errors import DecryptionFailed, KeyNotFound, KMSError, MalformedInput
from sentra_kms.runtime import KMS
from tests.conftest import MASTER_KEYS
from tests.properties.strategies import CONTEXTS, edited
from tests.reader import reader

pytestmark = pytest.mark.soak

PLAINTEXTS = st.one_of(st.binary(max_size=100), st.binary(min_size=16, max_size=16).map(bytes))
MASTER = MASTER_KEYS["2026-11"]


class Both:
    """A KMS over real files, and what the independent reader makes of the same files."""

    def __init__(self, kms: KMS, document: bytes) -> None:
        self.kms = kms
        self.acme = kms.keys.tenant("acme")
        self._masters = {"local:a": reader.MasterKey.read(MASTER.encode("ascii"))}
        keys = [master.auth_key for master in self._masters.values()]
        self._ring = reader.open_ring(document, "acme", keys)

    def outcome(self, message: bytes, context: Context) -> bytes | str:
        """Return the plaintext or the error's name, on which both agree, cold and warm."""
        theirs = outcome(lambda: reader.decrypt(self._ring, message, context, self._masters))
        for _ in range(2):
            assert outcome(lambda: self.acme.decrypt(message, context)) == theirs
        return theirs


def outcome(opened: Callable[[], bytes]) -> bytes | str:
    """Return the plaintext, or the name of the error."""
    try:
        return opened()
    except (KMSError, reader.ReadError) as error:
        return type(error).__name__


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Two versions of the tenant `acme` in files, and another tenant."""
    home = tmp_path_factory.mktemp("messages")
    (home / "master").touch(0o600)
    (home / "master").write_text(MASTER)
    table = {
        "development": True,
        "backends": {
            "local": {
                "type": "local",
                "directory": str(home / "keys"),
                "master_keys": {"a": f"file://{home}/master"},
            }
        },
        "keys": {"wrap_with": ["local:a"], "store": "local"},
    }
    with KMS(read_settings({"test": table}, "test"), now=lambda: 0.0) as kms:
        kms.keys.create("acme")
        kms.keys.create("other")
        kms.keys.rotate("acme")
        yield Both(kms, (home / "keys" / "acme.ring").read_bytes())


@given(PLAINTEXTS, CONTEXTS)
def test_message_comes_back(both: Both, plaintext: bytes, context: Context) -> None:
    """Alone or in a batch, to the package and to the independent reader."""
    messages = [both.acme.encrypt(plaintext, context)]
    messages += both.acme.encrypt_many([plaintext, b""], [context, None])[:1]
    for message in messages:
        assert len(message) == len(plaintext) + 96
        assert both.outcome(message, context) == plaintext
        assert both.acme.decrypt(bytearray(message), context) == plaintext
    assert both.acme.decrypt_many(messages, [context] * 2) == [plaintext] * 2


@pytest.mark.parametrize("bound", [2**11, 2**14, 2**16, 2**16 + 2**14])
@pytest.mark.parametrize("context", [None, b"context", {"table": "users"}])
def test_every_size_has_one_format(both: Both, bound: int, context: Context) -> None:
    """Whichever way a size is sealed: all read it, and changed or cut it does not open."""
    for size in (bound - 97, bound - 96, bound - 95, bound - 1, bound, bound + 1):
        plaintext = os.urandom(size)
        singly = [both.acme.encrypt(plaintext, context) for _ in range(2)]
        together = both.acme.encrypt_many([plaintext, b"", plaintext], [context] * 3)
        messages = [*singly, together[0], together[2]]
        assert len({message[68:80] for message in messages}) == len(messages)
        for message in messages:
            assert type(message) is bytes
            assert both.outcome(message, context) == plaintext
            assert both.acme.decrypt(memoryview(message), context) == plaintext
        assert both.acme.decrypt_many(messages, [context] * 4) == [plaintext] * 4
        for wrong in (message[:-1], message[:-1] + bytes([message[-1] ^ 1]), message + b"x"):
            assert both.outcome(wrong, context) == "DecryptionFailed"
            with pytest.raises(DecryptionFailed):
                both.acme.decrypt_many([messages[0], wrong], [context] * 2)


def test_message_cut_off_anywhere_is_told_alike(both: Both) -> None:
    """Below 96 bytes it is no message, from there on it was changed; also in a batch, also warm."""
    message = both.acme.encrypt(b"secret")
    for size in range(len(message)):
        expected = MalformedInput if size < 96 else DecryptionFailed
        assert both.outcome(message[:size], None) == expected.__name__
        with pytest.raises(expected):
            both.acme.decrypt_many([message, message[:size], message])


@given(st.data(), PLAINTEXTS, CONTEXTS)
def test_no_edit_opens(both: Both, data: st.DataObject, plaintext: bytes, context: Context) -> None:
    """Any edit is refused, with the error that the specification gives it."""
    message = both.acme.encrypt(plaintext, context)
    assert both.acme.decrypt(message, context) == plaintext
    answer = both.outcome(data.draw(edited(message)), context)
    names = (DecryptionFailed, MalformedInput, KeyNotFound)
    assert answer in {kind.__name__ for kind in names}


@given(st.data(), PLAINTEXTS)
def test_no_truncation_opens(both: Both, data: st.DataObject, plaintext: bytes) -> None:
    """Cut at its end or its beginning, a message is malformed or does not open."""
    message = both.acme.encrypt(plaintext)
    size = data.draw(st.integers(0, len(message) - 1))
    assert both.outcome(message[:size], None) == (
        "MalformedInput" if size < 96 else "DecryptionFailed"
    )
    assert both.outcome(message[size + 1 :], None) in {"MalformedInput", "DecryptionFailed"}


@given(CONTEXTS, CONTEXTS)
def test_no_other_context_opens(both: Both, sealed: Context, given_: Context) -> None:
    """A message opens under a context that encodes the same, and under no other."""
    message = both.acme.encrypt(b"x", sealed)
    same = encode_context(sealed) == encode_context(given_)
    assert both.outcome(message, given_) == (b"x" if same else "DecryptionFailed")
    with pytest.raises(DecryptionFailed):
        both.kms.keys.decrypt("other", message, sealed)
