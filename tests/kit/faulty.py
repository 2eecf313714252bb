"""Run by `test_faulty`: the suite joined by a right backend and by one for each mistake."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

from sentra_kms.reference import Reference
from sentra_kms.testing import BackendConformance, BackendHarness, SecretSample
from tests.kit.service_backend import SERVICES, Service

CAUGHT_BY = {
    "batch binds one context": "test_batch_and_single_agree",
    "batch drops a failed one": "test_batch_binds_each_context",
    "batch fails for one": "test_batch_refuses_what_was_tampered_with",
    "batch out of order": "test_batch_round_trip",
    "closes for all": "test_close_leaves_others_alone",
    "connects at once": "test_built_without_service",
    "deletes whatever is there": "test_stale_delete",
    "describes another version": "test_description_agrees",
    "drops the context": "test_context_is_bound",
    "empty for a missing secret": "test_missing_secret",
    "first page only": "test_list_in_pages",
    "first of a batch": "test_batch_of_secrets",
    "folds case": "test_tenants_that_differ_in_case",
    "foreign error for an unknown key": "test_odd_key_names",
    "ignores the revision": "test_stale_save",
    "keeps its connection": "test_fork",
    "keeps secrets": "test_changed_secret",
    "keeps secrets of a batch": "test_batch_sees_a_changed_secret",
    "key in a log": "test_logs_show_no_secret",
    "key of a batch in a log": "test_batch_shows_no_key",
    "key in an error": "test_errors_show_no_key",
    "key printed": "test_logs_show_no_secret",
    "one nonce": "test_wraps_differ",
    "pads": "test_other_sizes_do_not_come_back",
    "passes over options": "test_unknown_option",
    "passes over the end": "test_extended_is_refused",
    "purges everybody": "test_purge_erases_or_tells",
    "purges nothing": "test_purge_erases_or_tells",
    "purges what is live": "test_purge_leaves_the_live_ring",
    "stale ring": "test_each_save_has_a_revision",
    "tampering is a foreign error": "test_every_byte_is_authenticated",
    "text documents": "test_any_bytes",
    "trusts the record": "test_other_key_is_refused",
    "uses a disabled key": "test_disabled_key_on_unwrap",
    "wrong error for an unknown key": "test_unknown_key_on_wrap",
}
"""The check that names each mistake."""


class Harness(BackendHarness):
    type = "service"
    fault = ""

    @property
    def service(self) -> Service:
        """The service of this check."""
        return SERVICES.setdefault(str(self.path), Service())

    def settings(self) -> dict[str, object]:
        return {"address": str(self.path), "fault": self.fault}

    def kek(self) -> str:
        return "one"

    def second_kek(self) -> str:
        return "two"

    def disable_key(self, key: str) -> None:
        self.service.disabled.add(key)

    def secret(self) -> SecretSample:
        return SecretSample("service://platform", self.service.secrets["platform"])

    def change_secret(self, reference: str, data: bytes) -> None:
        self.service.secrets[Reference(reference).path] = data

    def ring_history(self, tenant: str) -> set[bytes]:
        live = self.service.rings.get(tenant)
        old = self.service.replaced.get(tenant, [])
        return {*old, *([live.document] if live else [])}

    def cut(self) -> None:
        self.service.away = True


class TestRight(BackendConformance):
    harness = Harness


def _wrong(fault: str) -> type[BackendConformance]:
    harness = type("WrongHarness", (Harness,), {"fault": fault})
    return type("TestWrong", (BackendConformance,), {"harness": harness})


globals().update({f"Test {fault}": _wrong(fault) for fault in CAUGHT_BY})
