"""Ring documents before their payload is looked at: the header line and its MAC.

An input that begins with `*` is a good document, overwritten with the rest from a place that two
bytes name; any other is the document itself.
"""

from __future__ import annotations

from sentra_kms.errors import RingRejected
from sentra_kms.keys.document import Authenticator, AuthKey
from sentra_kms.material import KeyMaterial
from tests.reader import reader, writer

KEYS = (bytes(range(32)), bytes(range(32, 64)))
PAYLOAD = b'{"not looked at": 1}'
GOOD = writer.sign(KEYS[1], "acme", PAYLOAD)


def source(number: int) -> AuthKey:
    """Return an authentication key."""
    return AuthKey(f"key {number}", KeyMaterial(KEYS[number]))


OURS = Authenticator([lambda: source(0), lambda: source(1)])
SIGNER = Authenticator([lambda: source(1)])


def run(data: bytes) -> None:
    """Try one document."""
    document = data
    if data[:1] == b"*":
        place = int.from_bytes(data[1:3], "big") % (len(GOOD) + 1)
        document = GOOD[:place] + data[3:] + GOOD[place + len(data[3:]) :]
    try:
        theirs = reader.authenticate(document, "acme", KEYS)
    except reader.RingRejected:
        theirs = None
    try:
        ours = OURS.verify("acme", document)
    except RingRejected as error:
        assert theirs is None, f"only the package refuses it: {error}"
        assert error.subject == "acme"
        assert error.__cause__ is error.__context__ is None
        assert len(error.message) < 600
        return
    assert theirs is not None
    assert document == GOOD
    assert ours == theirs[1] == PAYLOAD
    assert SIGNER.sign("acme", ours) == document
