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
    UnsupportedOperation,
)
from sentra_kms.hooktypes import SecretRequest, WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from sentra_kms.testing import forked
from sentra_kms.testing.base import (
    PLACE,
    Conformance,
    listed,
    must,
    need,
    often,
    refused,
    table,
    together,
)
from sentra_kms.testing.batches import BatchKeyConformance, BatchSecretConformance
from sentra_kms.testing.bench import ENVIRONMENT, Bench, configuration, other_name
from sentra_kms.testing.budget import budget_of
from sentra_kms.testing.harness import BackendHarness
from sentra_kms.testing.history import RingHistoryConformance
from sentra_kms.testing.keys import KeyConformance
from sentra_kms.testing.ring_races import RingRaceConformance
from sentra_kms.testing.rings import RingConformance
from sentra_kms.testing.secrets import SecretConformance
from sentra_kms.testing.silence import SilenceConformance
from sentra_kms.testing.skips import NO_FORK
from sentra_kms.testing.troubles import TroubleConformance
from sentra_kms.testing.user import User

_THREADS = 64
_FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason=NO_FORK)
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


class WholeConformance(SilenceConformance, TroubleConformance):
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
        user = User(bench.binding, subject)
        bench.again().close()
        user.use(0)

    def test_many_threads(self, bench: Bench, subject: BackendHarness) -> None:
        """A backend serves 64 threads at once, from its first call on."""
        count = often(subject, _THREADS, live=8)
        ends = together(count, User(bench.binding, subject).use, subject.patience)
        assert ends == [None] * count

    @_FORKS
    def test_fork(self, bench: Bench, subject: BackendHarness) -> None:
        """A child forked from a process that used the backend can use it, and so can the parent."""
        self._over_forks(bench, subject, children=1)

    @_FORKS
    def test_prefork(self, bench: Bench, subject: BackendHarness) -> None:
        """Of 4 workers forked from one that used the backend, all use it at the same time."""
        self._over_forks(bench, subject, children=4)

    def test_any_name(self, bench: Bench, subject: BackendHarness) -> None:
        """Under another name in the configuration a backend does the same: its type is no name.

        References begin with that name, and two of one type may stand side by side.
        """
        other = Bench(other_name(subject.name), table(subject))
        user = User(other.binding, subject)
        user.use(0)
        User(bench.binding, subject).use(1)
        user.use(2)
        other.close()

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
        "rest", ["a/b/c", "%00x", "a%2f%2fb", "a?b=c", "ä", "a" * 4000], ids=ascii
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
        assert listed(bench, 10) == ["acme"]
        assert bench.binding.load_ring("acme").document == b"one"

    def test_unknown_setting(self, subject: BackendHarness) -> None:
        """A setting that the type does not have is refused, and its name told."""
        wrong = configuration(subject.name, {**table(subject), "no_such_setting": 1})
        told = refused(ConfigurationError, lambda: read_settings(wrong, ENVIRONMENT))
        assert "no_such_setting" in told

    def _over_forks(self, bench: Bench, subject: BackendHarness, children: int) -> None:
        if subject.live:
            budget_of(type(subject)).spend(forked.CALLS * (children + 2))
        kek = must(subject.kek) if "wrap_key" in bench.operations else None
        secret = must(subject.secret).reference if "fetch_secret" in bench.operations else None
        assert forked.run_forked(subject.name, table(subject), kek, secret, children) == "ok"


def _no_foreign(call: Callable[[], object]) -> None:
    try:
        call()
    except PluginError as error:
        pytest.fail(error.message)
    except KMSError:
        pass
