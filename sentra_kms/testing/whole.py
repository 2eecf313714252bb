"""Checks of a backend as a whole, whatever it can do."""

# ruff: noqa: S101 - checks are tests

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import pytest

from sentra_kms.binding import Binding
from sentra_kms.config import read_settings
from sentra_kms.errors import (
    ConfigurationError,
    KMSError,
    PluginError,
    ServiceUnavailable,
    UnsupportedOperation,
)
from sentra_kms.hooktypes import SecretRequest, WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.testing.base import (
    PLACE,
    Conformance,
    able,
    must,
    need,
    refused,
    table,
    together,
)
from sentra_kms.testing.batches import BatchKeyConformance, BatchSecretConformance
from sentra_kms.testing.bench import ENVIRONMENT, Bench, configuration
from sentra_kms.testing.forked import run_forked
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.history import RingHistoryConformance
from sentra_kms.testing.keys import KeyConformance
from sentra_kms.testing.ring_races import RingRaceConformance
from sentra_kms.testing.rings import RingConformance
from sentra_kms.testing.secrets import SecretConformance
from sentra_kms.testing.silence import SilenceConformance

_THREADS = 32
_LONG = "k" * 5000
_ODD_KEYS = ["", " ", "no/such/../key", "../../etc/passwd", "k\x00", "schlüssel", "%2e%2e", _LONG]
_CHECKS: dict[str, tuple[type[Conformance], ...]] = {
    "wrap_key": (KeyConformance,),
    "wrap_keys": (BatchKeyConformance,),
    "fetch_secret": (SecretConformance,),
    "fetch_secrets": (BatchSecretConformance,),
    "save_ring": (RingConformance, RingRaceConformance),
    "purge_ring_history": (RingHistoryConformance,),
}
_CALLS: dict[str, Callable[[Binding], object]] = {
    "wrap_key": lambda bound: bound.wrap_key("k", KeyMaterial(bytes(32)), PLACE),
    "unwrap_key": lambda bound: bound.unwrap_key("k", WrappedKey(b"c", "k", None), PLACE),
    "describe_key": lambda bound: bound.describe_key("k"),
    "fetch_secret": lambda bound: bound.fetch_secret(SecretRequest(Reference(f"{bound.name}://s"))),
    "wrap_keys": lambda bound: bound.wrap_keys("k", []),
    "unwrap_keys": lambda bound: bound.unwrap_keys("k", []),
    "fetch_secrets": lambda bound: bound.fetch_secrets([]),
    "purge_ring_history": lambda bound: bound.purge_ring_history("acme"),
    "load_ring": lambda bound: bound.load_ring("acme"),
    "save_ring": lambda bound: bound.save_ring("acme", b"document", None),
    "list_rings": lambda bound: bound.list_rings(None, 10),
}


class WholeConformance(SilenceConformance):
    """For every backend."""

    def test_all_of_it_is_checked(self, bench: Bench) -> None:
        """A backend wraps keys, fetches secrets or keeps rings, and what it does is checked."""
        able_to = [operation for operation in _CHECKS if operation in bench.operations]
        assert able_to
        for operation in able_to:
            for checks in _CHECKS[operation]:
                assert isinstance(self, checks), f"{operation} needs its checks joined"

    def test_use_after_close(self, bench: Bench) -> None:
        """A closed backend refuses every operation."""
        bench.binding.close()
        for operation in sorted(bench.operations & _CALLS.keys()):
            refused(UnsupportedOperation, partial(_CALLS[operation], bench.binding))

    def test_close_twice(self, bench: Bench) -> None:
        """A backend may be closed again, and closed before it was used."""
        bench.binding.close()
        bench.binding.close()
        again = bench.again()
        again.close()
        again.close()

    def test_close_leaves_others_alone(self, bench: Bench, subject: BackendHarness) -> None:
        """Closing one does not break another that is bound to the same service."""
        user = _User(bench.binding, subject)
        bench.again().close()
        user.use(0)

    def test_many_threads(self, bench: Bench, subject: BackendHarness) -> None:
        """A backend serves 32 threads at once, from its first call on."""
        ends = together(_THREADS, _User(bench.binding, subject).use)
        assert ends == [None] * _THREADS

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_fork(self, bench: Bench, subject: BackendHarness) -> None:
        """A child forked from a process that used the backend can use it, and so can the parent."""
        kek = must(subject.kek) if "wrap_key" in bench.operations else None
        secret = must(subject.secret).reference if "fetch_secret" in bench.operations else None
        assert run_forked(subject.name, table(subject), kek, secret) == "ok"

    @pytest.mark.parametrize("key", _ODD_KEYS, ids=ascii)
    def test_odd_key_names(self, bench: Bench, subject: BackendHarness, key: str) -> None:
        """Whatever a KEK is called, it is used or refused with an error of ours."""
        need(bench, "wrap_key")
        wrapped = bench.binding.wrap_key(must(subject.kek), KeyMaterial(bytes(32)), PLACE)
        for call in (
            lambda: bench.binding.wrap_key(key, KeyMaterial(bytes(32)), PLACE),
            lambda: bench.binding.unwrap_key(key, wrapped, PLACE),
            lambda: bench.binding.describe_key(key),
        ):
            _no_foreign(call)

    @pytest.mark.parametrize(
        "rest", ["a/b/c", "%00x", "a%2f%2fb", "a?b=c", "a#b", "ä", "a" * 4000], ids=ascii
    )
    def test_odd_references(self, bench: Bench, rest: str) -> None:
        """Whatever a reference names, it is fetched or refused with an error of ours."""
        need(bench, "fetch_secret")
        text = f"{bench.binding.name}://{rest}"
        try:
            reference = Reference(text)
        except KMSError:
            return
        _no_foreign(lambda: bench.binding.fetch_secret(SecretRequest(reference)))

    def test_check_answers(self, bench: Bench) -> None:
        """`check` finds no error in a backend that works; what it finds has a subject and text."""
        for finding in bench.binding.check():
            assert finding.level in {"ok", "warning"}, finding
            assert finding.subject
            assert finding.message

    def test_check_changes_nothing(self, bench: Bench) -> None:
        """`check` makes no ring and takes none away."""
        need(bench, "list_rings")
        bench.binding.save_ring("acme", b"one", None)
        bench.binding.check()
        assert bench.binding.list_rings(None, 10).tenants == ("acme",)
        assert bench.binding.load_ring("acme").document == b"one"

    def test_unknown_setting(self, subject: BackendHarness) -> None:
        """A setting that the type does not have is refused, and its name told."""
        wrong = configuration(subject.name, {**table(subject), "no_such_setting": 1})
        told = refused(ConfigurationError, lambda: read_settings(wrong, ENVIRONMENT))
        assert "no_such_setting" in told

    def test_built_without_service(self, subject: BackendHarness) -> None:
        """A backend is built while its service is away: creating it connects to nothing."""
        settings = table(subject)
        able(subject.cut)
        Bench(subject.name, settings).close()

    def test_service_away(self, bench: Bench, subject: BackendHarness) -> None:
        """While the service is away every operation is `ServiceUnavailable`, and retryable."""
        calls = _useful_calls(bench, subject)
        able(subject.cut)
        for operation, call in calls.items():
            with pytest.raises(ServiceUnavailable) as caught:
                call()
            assert caught.value.retryable, operation


class _User:
    """Uses everything that a backend implements. Made in one thread, used from any."""

    def __init__(self, bound: Binding, subject: BackendHarness) -> None:
        self._bound = bound
        self._kek = must(subject.kek) if "wrap_key" in bound.operations else None
        self._secret = must(subject.secret) if "fetch_secret" in bound.operations else None

    def use(self, number: int) -> None:
        """Fail unless all goes well; `number` tells this use from others."""
        bound = self._bound
        if self._kek is not None:
            material = KeyMaterial(os.urandom(32))
            wrapped = bound.wrap_key(self._kek, material, PLACE)
            assert bound.unwrap_key(self._kek, wrapped, PLACE) == material
        if self._secret is not None:
            found = bound.fetch_secret(SecretRequest(Reference(self._secret.reference)))
            assert found.data.reveal() == self._secret.data
        if "save_ring" in bound.operations:
            tenant = f"tenant-{number}"
            revision = bound.save_ring(tenant, tenant.encode(), None)
            bound.save_ring(tenant, tenant.encode() * 2, revision)
            assert bound.load_ring(tenant).document == tenant.encode() * 2


def _useful_calls(bench: Bench, subject: BackendHarness) -> dict[str, Callable[[], object]]:
    """Return a call of each operation that would go well, what it needs being made now."""
    bound = bench.binding
    calls: dict[str, Callable[[], object]] = {}
    if "wrap_key" in bound.operations:
        kek, material = must(subject.kek), KeyMaterial(os.urandom(32))
        wrapped = bound.wrap_key(kek, material, PLACE)
        calls["wrap_key"] = lambda: bound.wrap_key(kek, material, PLACE)
        calls["unwrap_key"] = lambda: bound.unwrap_key(kek, wrapped, PLACE)
        calls["describe_key"] = lambda: bound.describe_key(kek)
    if "fetch_secret" in bound.operations:
        request = SecretRequest(Reference(must(subject.secret).reference))
        calls["fetch_secret"] = lambda: bound.fetch_secret(request)
    if "save_ring" in bound.operations:
        revision = bound.save_ring("acme", b"one", None)
        calls["load_ring"] = lambda: bound.load_ring("acme")
        calls["save_ring"] = lambda: bound.save_ring("acme", b"two", revision)
        calls["create_ring"] = lambda: bound.save_ring("globex", b"one", None)
        calls["list_rings"] = lambda: bound.list_rings(None, 10)
        if "purge_ring_history" in bound.operations:
            calls["purge_ring_history"] = lambda: bound.purge_ring_history("acme")
        calls["delete_ring"] = lambda: bench.delete_ring("acme", revision)
    return calls


def _no_foreign(call: Callable[[], object]) -> None:
    try:
        call()
    except PluginError as error:
        pytest.fail(error.message)
    except KMSError:
        pass
