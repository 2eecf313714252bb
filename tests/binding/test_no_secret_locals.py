"""A refused answer may be a key: no frame of the traceback shows it."""

from __future__ import annotations

import base64
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.backends.file import FileSecrets
from sentra_kms.binding import Binding
from sentra_kms.errors import KMSError, PluginError
from sentra_kms.hookspecs import PartHooks, RingAuthHooks, hookimpl
from sentra_kms.hooktypes import (
    KeyDescription,
    SecretRequest,
    SecretValue,
    StoredRing,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.binding.fakes import WHERE, Keys, Rings, Secrets, bind
from tests.conftest import ConfigFactory
from tests.ground.leaks import chain, locals_inside, shows

PLANTED = b"planted-ring-key-of-32-bytes-ok!"
PACKAGE = os.path.dirname(sentra_kms.__file__)


class AuthKeys(RingAuthHooks, PartHooks):
    """A part that answers `ring_auth_key` as the test says."""

    def __init__(self, act: Callable[[str, dict[str, Any]], Any]) -> None:
        self._act = act

    @hookimpl
    def ring_auth_key(self, key: str) -> KeyMaterial:
        """Answer as the test says."""
        found: KeyMaterial = self._act("ring_auth_key", {"key": key})
        return found


CALLS: dict[str, Callable[[Binding], object]] = {
    "wrap_key": lambda binding: binding.wrap_key("k", KeyMaterial(PLANTED), WHERE),
    "unwrap_key": lambda binding: binding.unwrap_key("k", WrappedKey(b"w", "id", None), WHERE),
    "describe_key": lambda binding: binding.describe_key("k"),
    "ring_auth_key": lambda binding: binding.ring_auth_key("k"),
    "fetch_secret": lambda binding: binding.fetch_secret(SecretRequest(Reference("fake://p"))),
    "load_ring": lambda binding: binding.load_ring("acme"),
    "save_ring": lambda binding: binding.save_ring("acme", b"ring", "1"),
    "list_rings": lambda binding: binding.list_rings(None, 10),
}

UNFIT: Any = lambda value: value  # noqa: E731 - records take anything when they are made
ANSWERS: dict[str, Callable[[], object]] = {
    "bytes": lambda: PLANTED,
    "str": PLANTED.decode,
    "bytearray": lambda: bytearray(PLANTED),
    "list": lambda: [PLANTED],
    "mapping": lambda: {"value": PLANTED.decode()},
    "SecretValue of bytes": lambda: SecretValue(UNFIT(PLANTED)),
    "SecretValue of str": lambda: SecretValue(UNFIT(PLANTED.decode())),
    "SecretValue with a version of bytes": lambda: SecretValue(
        KeyMaterial(b"x"), version=UNFIT(PLANTED)
    ),
    "WrappedKey of str": lambda: WrappedKey(UNFIT(PLANTED.decode()), "id", None),
    "WrappedKey with a version of bytes": lambda: WrappedKey(b"w", "id", UNFIT(PLANTED)),
    "KeyDescription of bytes": lambda: KeyDescription(UNFIT(PLANTED), None),
    "StoredRing of str": lambda: StoredRing(UNFIT(PLANTED.decode()), "1"),
}


def shown_inside(error: BaseException) -> str:
    """Return the locals of the package's own frames, as a traceback printer captures them."""
    told: list[str] = []
    for each in chain(error):
        whole = traceback.TracebackException.from_exception(each, capture_locals=True)
        told += [
            f"{frame.name}: {frame.locals}"
            for frame in whole.stack
            if frame.filename.startswith(PACKAGE + os.sep)
        ]
    return "\n".join(told)


def check_silent(error: KMSError) -> None:
    """Assert that an error and the package's frames show nothing of what was planted."""
    inside = shown_inside(error)
    assert "_call: " in inside  # there was something to look at
    for output in (inside, locals_inside(error), f"{error} {error!r} {vars(error)!r}"):
        assert not shows(output, PLANTED)


@pytest.mark.parametrize(
    ("operation", "shape"),
    [
        (operation, shape)
        for operation in CALLS
        for shape in ANSWERS
        if (operation, shape) != ("save_ring", "str")  # any text is a revision
    ],
)
def test_refused_answer_is_in_no_frame(operation: str, shape: str) -> None:
    """Whatever an operation is answered with that it should not be, its bytes stay behind."""
    binding = bind(
        lambda: [
            part(lambda _operation, _arguments: ANSWERS[shape]())
            for part in (Keys, Rings, Secrets, AuthKeys)
        ]
    )
    with pytest.raises(PluginError) as caught:
        CALLS[operation](binding)
    check_silent(caught.value)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_key_of_a_wrong_length_is_in_no_frame(size: int) -> None:
    """An unwrapped key that is too long or too short is a key all the same."""
    key = (PLANTED * 2)[:size]
    binding = bind(lambda: Keys(lambda _operation, _arguments: KeyMaterial(key)))
    with pytest.raises(PluginError) as caught:
        CALLS["unwrap_key"](binding)
    check_silent(caught.value)


@pytest.mark.parametrize("shape", ["bytes", "str", "SecretValue of bytes", "SecretValue of str"])
@pytest.mark.parametrize("use", ["ring key", "master key"])
def test_refused_secret_is_in_no_frame_above_the_boundary(
    config: ConfigFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: str,
    use: str,
) -> None:
    """Not when it should have authenticated rings, and not when it should have wrapped keys."""
    good = tmp_path / "good"
    good.write_bytes(base64.b64encode(bytes(32)))
    good.chmod(0o600)
    original = FileSecrets.fetch_secret

    @hookimpl
    def fetch_secret(self: FileSecrets, request: SecretRequest, timeout: float) -> Any:
        if request.reference.path == "/planted":
            return ANSWERS[shape]()
        return original(self, request, timeout)

    monkeypatch.setattr(FileSecrets, "fetch_secret", fetch_secret)
    mapping = config(keys={"authenticate_with": [f"file://{good}"]})
    table = mapping["development"]
    if use == "ring key":
        table["keys"]["authenticate_with"] = ["file:///planted"]
    else:
        table["backends"]["local"]["master_keys"] = {"2026-11": "file:///planted"}
        table["keys"]["unwrap_with"] = []
    with (
        sentra_kms.load(mapping, "development") as kms,
        pytest.raises(PluginError, match="fetch_secret") as caught,
    ):
        kms.keys.create("acme")
    check_silent(caught.value)
