"""Nonces in a process whose system refuses to give random bytes the usual way."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys

import pytest

from sentra_kms.keys.message import quick_random
from sentra_kms.runtime import KMS
from tests.keys.conftest import ROOT, in_fork, nonce_of, salt_of
from tests.sandbox import NUMBERS, refuse_getrandom

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in NUMBERS,
    reason="a sandbox of Linux, and the number of one of its calls",
)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_process_that_gives_up_getrandom_seals_on(memory_kms: KMS, number: int) -> None:
    """Messages of every size go on under the same epoch, with nonces out of /dev/urandom."""
    acme = memory_kms.keys.tenant("acme")
    acme.decrypt(acme.encrypt(b"warm"))

    def work() -> bytes:
        assert quick_random is os.getrandom
        salt = salt_of(acme.encrypt(b"x"))
        refuse_getrandom(number)
        with pytest.raises(OSError, match=os.strerror(number)):
            os.getrandom(1)
        plains = [b"x"] * 100 + [bytes(5000), bytes(100_000)]
        messages = [acme.encrypt(plain) for plain in plains] + acme.encrypt_many(plains)
        assert {salt_of(message) for message in messages} == {salt}
        assert len({nonce_of(message) for message in messages}) == len(messages)
        assert acme.decrypt_many(messages) == plains * 2
        return b"sealed"

    assert in_fork(work) == b"sealed"


SCRIPT = """
from tests.sandbox import refuse_getrandom
import os, sys
refuse_getrandom(int(sys.argv[1]))
from sentra_kms.keys import message
assert message.quick_random is os.urandom
from sentra_kms.config import read_settings
from sentra_kms.runtime import KMS
from tests.keys.conftest import memory_config
with KMS(read_settings(memory_config(), "test")) as kms:
    kms.keys.create("acme")
    messages = [kms.keys.encrypt("acme", b"x") for _ in range(100)]
    assert len({message[68:80] for message in messages}) == 100
    assert kms.keys.decrypt_many("acme", messages) == [b"x"] * 100
print("sealed")
"""


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_process_that_never_had_getrandom_takes_urandom(number: int) -> None:
    """The package is imported inside the sandbox."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(number)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    assert done.stdout == "sealed\n", done.stderr
