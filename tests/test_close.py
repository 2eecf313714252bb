"""`KMS.close`: everything is let go of, whatever fails on the way and whoever is still at work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from sentra_kms.backends.local import LocalKeys
from sentra_kms.config import read_settings
from sentra_kms.errors import KMSError, PluginError, ServiceUnavailable, UnsupportedOperation
from sentra_kms.hookspecs import hookimpl
from sentra_kms.runtime import KMS
from tests.conftest import MASTER_KEYS, ConfigFactory

WAIT = 60.0  # seconds after which a test that hangs is told so
NAMES = ("a", "b", "c")


@pytest.fixture
def three(config: ConfigFactory, tmp_path: Any) -> KMS:
    """A KMS of three local backends, each of whose master keys has been used."""
    mapping = config(masters={"2026-11": MASTER_KEYS["2026-11"]})
    table = mapping["development"]
    local = table["backends"].pop("local")
    for name in NAMES:
        table["backends"][name] = {**local, "directory": str(tmp_path / name)}
    table["keys"] = {"wrap_with": [f"{name}:2026-11" for name in NAMES], "store": "a"}
    kms = KMS(read_settings(mapping, "development"))
    kms.keys.create("acme")
    kms.keys.encrypt("acme", b"x")
    return kms


def master_keys(kms: KMS, name: str) -> dict[str, Any]:
    """Return the master keys that a local backend holds."""
    hooks: Any = kms._wiring.bindings[name]._hooks
    (implementation,) = hooks.unwrap_key.get_hookimpls()
    held: dict[str, Any] = implementation.plugin._keys
    return held


def fail_to_close(monkeypatch: pytest.MonkeyPatch, failures: dict[str, Exception]) -> None:
    """Let the local backends of these names be closed from now on, and raise when they are."""
    close = LocalKeys.close

    @hookimpl
    def failing(self: LocalKeys) -> None:
        close(self)
        failure = failures.get(self._host.name)
        if failure is not None:
            raise failure

    monkeypatch.setattr(LocalKeys, "close", failing)


@pytest.mark.parametrize("failing", [("a",), ("b",), ("c",), ("a", "b"), ("b", "c"), NAMES])
def test_every_backend_is_closed_though_some_fail(
    config: ConfigFactory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    failing: tuple[str, ...],
) -> None:
    """The first error is told once all are closed, and no master key is left in memory."""
    fail_to_close(monkeypatch, {name: RuntimeError(name) for name in failing})
    kms: KMS = request.getfixturevalue("three")
    closed: list[str] = []
    observers = SimpleNamespace(close=lambda: closed.append("observers"))
    monkeypatch.setattr(kms, "_observers", observers)
    held = [master_keys(kms, name) for name in NAMES]
    assert all(held)
    with pytest.raises(PluginError, match="RuntimeError") as caught:
        kms.close()
    assert caught.value.backend == failing[0]
    assert caught.value.__context__ is None
    assert not any(held)
    assert closed == ["observers"]
    for name in NAMES:
        with pytest.raises(UnsupportedOperation, match="is closed"):
            kms._wiring.bindings[name].load_ring("acme")
    kms.close()  # a second time there is nothing to do and nothing to tell


def test_error_of_ours_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """What a backend says of its closing comes up unchanged; the others' errors do not hide it."""
    fail_to_close(
        monkeypatch,
        {"b": ServiceUnavailable("the session would not end"), "c": RuntimeError("later")},
    )
    kms: KMS = request.getfixturevalue("three")
    held = [master_keys(kms, name) for name in NAMES]
    with pytest.raises(ServiceUnavailable, match="the session would not end") as caught:
        kms.close()
    assert not any(held)
    assert (caught.value.backend, caught.value.operation) == ("b", "close")


def test_failure_to_close_ends_a_with_block(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Leaving the block closes all and tells it, as `close` does."""
    fail_to_close(monkeypatch, {"a": RuntimeError("a")})
    kms: KMS = request.getfixturevalue("three")
    held = [master_keys(kms, name) for name in NAMES]
    with pytest.raises(PluginError), kms:
        assert kms.keys.encrypt("acme", b"x")
    assert not any(held)


def test_closing_twice_is_fine(three: KMS) -> None:
    """Later operations say that the backend is closed."""
    three.close()
    three.close()
    uses: list[Callable[[], object]] = [
        lambda: three.keys.encrypt("acme", b"x"),
        lambda: three.keys.rotate("acme"),
        lambda: three.keys.describe("acme"),
        lambda: three.keys.create("new"),
        lambda: list(three.keys.tenants()),
    ]
    for use in uses:
        with pytest.raises(UnsupportedOperation, match="is closed"):
            use()


def test_no_key_is_left(three: KMS) -> None:
    """Tenant keys, subkeys, master keys and ring authentication keys are all forgotten."""
    message = three.keys.encrypt("acme", b"x")
    assert three.keys.decrypt("acme", message) == b"x"
    authenticator: Any = three.keys._rings.store._authenticator
    cache = three.keys._cache
    held: list[Any] = [master_keys(three, name) for name in NAMES]
    held += [authenticator._keys, cache.entries, cache.epochs]
    assert all(held)
    three.close()
    assert not any(held)


def test_ring_keys_from_a_reference_are_dropped(config: ConfigFactory, tmp_path: Any) -> None:
    """A ring authentication key that was fetched is forgotten, too."""
    path = tmp_path / "ring_key"
    path.touch(0o600)
    path.write_text(MASTER_KEYS["2026-11"])
    mapping = config(keys={"authenticate_with": [f"file://{path}"]})
    kms = KMS(read_settings(mapping, "development"))
    kms.keys.create("acme")
    authenticator: Any = kms.keys._rings.store._authenticator
    assert authenticator._keys
    kms.close()
    assert not authenticator._keys


class Held:
    """Stands before an operation of a bound backend: lets its answer go when the test says so."""

    def __init__(self, kms: KMS, backend: str, operation: str) -> None:
        binding: Any = kms._wiring.bindings[backend]
        self._original: Callable[..., Any] = getattr(binding, operation)
        self.entered, self.release = threading.Event(), threading.Event()
        setattr(binding, operation, self)

    def __call__(self, *arguments: Any) -> Any:
        """Answer as the backend did before it was closed."""
        answer = self._original(*arguments)
        self.entered.set()
        assert self.release.wait(WAIT)
        return answer


def close_meanwhile(kms: KMS, held: Held, work: Callable[[], object]) -> object:
    """Close while `work` is held up in another thread; return what came of the work."""
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(work())
        except KMSError as error:
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert held.entered.wait(WAIT)
    kms.close()
    held.release.set()
    thread.join(WAIT)
    (outcome,) = outcomes  # whatever else was raised would be foreign
    return outcome


def check_nothing_is_held(kms: KMS) -> None:
    """Assert that no key and nothing derived from one is reachable from a closed KMS."""
    cache: Any = kms.keys._cache
    authenticator: Any = kms.keys._rings.store._authenticator
    assert (cache.entries, cache.epochs, cache._memory._held) == ({}, {}, 0)
    assert not cache._memory._openers
    assert not authenticator._keys
    assert not any(master_keys(kms, name) for name in NAMES)


@pytest.mark.parametrize(
    ("operation", "use"),
    [
        ("load_ring", "encrypt"),
        ("load_ring", "decrypt"),
        ("unwrap_key", "encrypt"),
        ("unwrap_key", "decrypt"),
        ("save_ring", "rotate"),
        ("save_ring", "create"),
    ],
)
def test_what_was_under_way_leaves_nothing_behind(three: KMS, operation: str, use: str) -> None:
    """A ring or key that arrives after the close may serve its caller, and is not held."""
    message = three.keys.encrypt("acme", b"x")
    three.keys._cache.clear()
    work: dict[str, Callable[[], object]] = {
        "encrypt": lambda: three.keys.encrypt("acme", b"x"),
        "decrypt": lambda: three.keys.decrypt("acme", message),
        "rotate": lambda: three.keys.rotate("acme"),
        "create": lambda: three.keys.create("new"),
    }
    close_meanwhile(three, Held(three, "a", operation), work[use])
    check_nothing_is_held(three)


def test_ring_that_was_read_before_the_close_is_not_held_after_it(three: KMS) -> None:
    """Not even one that was verified already when everything was let go of."""
    cache: Any = three.keys._cache
    cache.clear()
    held = Held.__new__(Held)
    held.entered, held.release = threading.Event(), threading.Event()
    held._original = cache._load
    cache._load = held
    outcome = close_meanwhile(three, held, lambda: three.keys.encrypt("acme", b"x"))
    assert isinstance(outcome, UnsupportedOperation)
    check_nothing_is_held(three)


def test_master_key_that_was_being_read_is_not_held(three: KMS) -> None:
    """A secret that arrives after the close makes no KEK that stays in memory."""
    keys = master_keys(three, "a")
    keys.clear()
    held = Held(three, "env", "fetch_secret")
    close_meanwhile(three, held, lambda: three.keys.rotate("acme"))
    check_nothing_is_held(three)


@pytest.mark.parametrize("where", ["put", "admit", "submit"])
def test_close_from_a_signal_handler_does_not_wait_for_itself(
    three: KMS, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A handler runs in the main thread, which may be anywhere, and leaves nothing behind."""
    cache: Any = three.keys._cache
    memory: Any = cache._memory
    closed = threading.Event()
    others = set(threading.enumerate())

    def close() -> None:
        monkeypatch.undo()
        three.close()
        closed.set()

    def work() -> None:
        if where == "submit":
            cache._background.submit("late", lambda: None)
        else:
            with suppress(KMSError):  # it is closed
                three.keys.encrypt("acme", b"x")

    class Names(set[object]):
        def add(self, name: object) -> None:
            super().add(name)
            close()

    if where == "put":  # a ring is about to be held
        cache.clear()
        monkeypatch.setattr(memory, "_keep_ring", lambda _: close())
    elif where == "admit":  # a key is about to be held
        cache.clear()
        monkeypatch.setattr(memory, "_admit", lambda *_: close())
    else:
        cache._background._names = Names()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert closed.is_set(), "it hangs"
    check_nothing_is_held(three)
    names = [each.name for each in threading.enumerate() if each not in others]
    assert "sentra-kms-refresh" not in names
