"""Run by `test_faulty`: the suite joined by a right backend and by one for each mistake."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from sentra_kms.reference import Reference
from sentra_kms.testing import (
    BackendConformance,
    BackendHarness,
    EndToEndConformance,
    RingConformance,
    RingRaceConformance,
    SecretSample,
    WholeConformance,
)
from tests.kit.service import BINARY, FIELDS, PLATFORM, SERVICES, Service
from tests.kit.service_stores import SHORT_PAGES
from tests.kit.shared_rings import ALONE, DROPS

CAUGHT_BY = {
    "a timeout for each try": "test_stalled",
    "an outage of a batch is a lack": "test_batch_of_secrets_while_away",
    "an unknown code is a lack": "test_unknown_answer",
    "an unknown code is an outage": "test_unknown_answer",
    "an unknown code of a batch is an outage": "test_unknown_answer",
    "answers None": "test_round_trip",
    "away is a foreign error": "test_service_away",
    "batch binds one context": "test_batch_and_single_agree",
    "batch binds one context a tenant": "test_batch_binds_all_of_each_context",
    "batch drops a failed one": "test_batch_binds_each_context",
    "batch fails for one": "test_batch_refuses_what_was_tampered_with",
    "batch forgets versions": "test_batch_after_a_rotation",
    "batch out of order": "test_batch_round_trip",
    "batch uses a disabled key": "test_batch_under_a_disabled_key",
    "blocks for ever": "test_stalled",
    "check asks nobody": "test_check_tells_of_an_outage",
    "check blocks for ever": "test_stalled",
    "closes for all": "test_close_leaves_others_alone",
    "compares, then deletes": "test_one_saves_or_deletes",
    "compares, then saves": "test_one_saves",
    "connects at once": "test_built_without_service",
    "counts each ring's saves": "test_created_again",
    "counts its nonces": "test_wraps_differ",
    "counts to its cursor": "test_list_while_rings_go",
    "cuts documents": "test_more_than_the_largest",
    "cuts long secrets": "test_secret_of_every_size",
    "cuts to fit": "test_answer_of_another_size",
    "deletes whatever is there": "test_stale_delete",
    "denial is an outage": "test_denied",
    "describes another version": "test_description_agrees",
    "describes what is disabled": "test_disabled_key_on_describe",
    "drops the context": "test_context_is_bound",
    "drops the context after a rotation": "test_rotation_keeps_the_binding",
    "empty for a missing secret": "test_missing_secret",
    "fields as they print": "test_field_of_a_secret",
    "first of a batch": "test_batch_of_secrets",
    "first page only": "test_list_in_pages",
    "folds case": "test_tenants_that_differ_in_case",
    "folds the case of keys": "test_names_of_keys_that_differ_in_case",
    "foreign error for an unknown key": "test_odd_key_names",
    "forgets versions": "test_rotated_key_unwraps_what_it_wrapped",
    "half a key in a log": "test_logs_show_no_secret",
    "ignores the revision": "test_stale_save",
    "keeps a deleted secret": "test_deleted_secret",
    "keeps a place's key": "test_unwrapped_is_not_kept",
    "keeps an error": "test_errors_name_nobody_else",
    "keeps descriptions": "test_service_away",
    "keeps its connection": "test_fork",
    "keeps secrets": "test_changed_secret",
    "keeps secrets of a batch": "test_batch_sees_a_changed_secret",
    "keeps the version": "test_rotated_key_records_its_version",
    "keeps what it unwrapped": "test_disabled_key_on_unwrap",
    "key in a log": "test_logs_show_no_secret",
    "key in a warning": "test_logs_show_no_secret",
    "key in an error": "test_errors_show_no_key",
    "key of a batch in a log": "test_batch_shows_no_key",
    "key printed": "test_logs_show_no_secret",
    "knows one name": "test_any_name",
    "logs in at once": "test_building_asks_nothing",
    "looks for its cursor": "test_list_while_rings_go",
    "makes up an answer": "test_lost_answer_of_create",
    "newest for an unknown version": "test_unknown_version",
    "not for threads": "test_many_threads",
    "one nonce": "test_wraps_differ",
    "pads": "test_other_sizes_do_not_come_back",
    "passes over options": "test_unknown_option",
    "passes over the end": "test_extended_is_refused",
    "passes over versions": "test_version_of_a_secret",
    "purges by prefix": "test_purge_erases_or_tells",
    "purges everybody": "test_purge_erases_or_tells",
    "purges nothing": "test_purge_erases_or_tells",
    "purges what is live": "test_purge_leaves_the_live_ring",
    "repeats a delete": "test_lost_answer_of_delete",
    "repeats a save": "test_lost_answer_of_save",
    "retries what is disabled": "test_disabled_key_on_wrap",
    "retries without end": "test_retries_are_bounded",
    "secret as its version": "test_events_show_no_secret",
    "secret in an error": "test_errors_show_no_secret",
    "secret of a refusal in a log": "test_logs_show_no_secret",
    "silence is an outage": "test_stalled",
    "stale ring": "test_each_save_has_a_revision",
    "strips documents": "test_smallest_documents",
    "strips secrets": "test_binary_secret",
    "swallows a denial": "test_denied",
    "swallows a denial of a batch": "test_batch_of_secrets_denied",
    "takes a key by its first letters": "test_names_of_keys_are_whole",
    "tampering is a foreign error": "test_every_byte_is_authenticated",
    "tells the newest version": "test_version_of_a_secret",
    "text documents": "test_any_bytes",
    "throttled for good": "test_throttled",
    "throttling is an outage": "test_throttled",
    "token in a log": "test_logs_show_no_secret",
    "token in an error": "test_errors_show_no_credential",
    "trusts the record": "test_other_key_is_refused",
    "uses a destroyed key": "test_deleted_key",
    "uses a disabled key": "test_disabled_key_on_unwrap",
    "uses a scheduled key": "test_scheduled_key_on_unwrap",
    "waits its own time": "test_stalled",
    "wrong error for an unknown key": "test_unknown_key_on_wrap",
}
"""The check that names each mistake."""

ALSO_CAUGHT_BY = [
    ("check asks nobody", "test_check_tells_of_a_denial"),
    ("check asks nobody", "test_stalled"),
    ("describes what is disabled", "test_scheduled_key_on_describe"),
    ("drops the context", "test_batch_binds_each_context"),
    ("ignores the revision", "test_create_twice"),
    ("ignores the revision", "test_one_creates"),
    ("ignores the revision", "test_one_saves"),
    ("keeps descriptions", "test_denied"),
    ("keeps descriptions", "test_rotated_key_records_its_version"),
    ("keeps its connection", "test_prefork"),
    ("keeps the version", "test_rewrap_after_a_rotation_of_its_key"),
    ("keeps what it unwrapped", "test_deleted_key"),
    ("keeps what it unwrapped", "test_denied"),
    ("keeps what it unwrapped", "test_scheduled_key_on_unwrap"),
    ("keeps what it unwrapped", "test_service_away"),
    ("makes up an answer", "test_lost_answer_of_save"),
    ("trusts the record", "test_unknown_key_on_unwrap"),
    ("uses a disabled key", "test_disabled_key_on_wrap"),
    ("uses a scheduled key", "test_scheduled_key_on_wrap"),
]
"""Further checks that catch one by themselves."""


class Harness(BackendHarness):
    type = "service"
    absent: ClassVar[Mapping[str, str]] = {"share": "it lives in this process"}
    tenants = 1000
    fault = ""

    @property
    def service(self) -> Service:
        """The service of this check."""
        return SERVICES.setdefault(str(self.path), Service())

    def close(self) -> None:
        self.service.mended.set()

    def settings(self) -> dict[str, object]:
        self.patch.setenv("SERVICE_TOKEN", "planted-token-of-the-service")
        return {
            "address": str(self.path),
            "token": "env://SERVICE_TOKEN",
            "fault": self.fault,
        }

    def kek(self) -> str:
        return "one"

    def second_kek(self) -> str:
        return "two"

    def disable_key(self, key: str) -> None:
        self.service.keys[key].state = "disabled"

    def schedule_key(self, key: str) -> None:
        self.service.keys[key].state = "scheduled"

    def delete_key(self, key: str) -> None:
        self.service.keys[key].state = "destroyed"

    def rotate_key(self, key: str) -> None:
        self.service.keys[key].versions.append(os.urandom(32))

    def answer_unwrap(self, data: bytes) -> None:
        self.service.answers = data

    def secret(self) -> SecretSample:
        return SecretSample("service://platform", PLATFORM)

    def binary_secret(self) -> SecretSample:
        return SecretSample("service://binary", BINARY)

    def field_secret(self) -> SecretSample:
        return SecretSample("service://fields#password", FIELDS["password"])

    def secret_version(self, reference: str) -> str:
        return f"{reference}?version={len(self.service.secrets[Reference(reference).path])}"

    def change_secret(self, reference: str, data: bytes) -> None:
        self.service.secrets[Reference(reference).path].append(data)

    def delete_secret(self, reference: str) -> None:
        del self.service.secrets[Reference(reference).path]

    def ring_history(self, tenant: str) -> set[bytes]:
        live = self.service.rings.get(tenant)
        old = self.service.replaced.get(tenant, [])
        return {*old, *([live.document] if live else [])}

    def lose_answer(self) -> None:
        self.service.loses = True

    def deny(self) -> None:
        self.service.trouble = "denies"

    def throttle(self) -> None:
        self.service.trouble = "throttles"

    def stall(self) -> None:
        self.service.trouble = "stalls"

    def cut(self) -> None:
        self.service.trouble = "away"

    def answer_unknown(self) -> None:
        self.service.trouble = "answers what is not known"

    def requests(self) -> list[str]:
        return self.service.requests


class TestRight(BackendConformance):
    harness = Harness


class ShortPages(Harness):
    fault = SHORT_PAGES


class TestShortPages(BackendConformance):
    harness = ShortPages


class SharedHarness(BackendHarness):
    """Rings in files, which processes share; nobody can be in trouble with them."""

    type = "shared"
    fault = ""

    def settings(self) -> dict[str, object]:
        return {"directory": str(self.path / "rings"), "fault": self.fault}


class TestShared(RingConformance, RingRaceConformance, WholeConformance, EndToEndConformance):
    harness = SharedHarness


class AloneHarness(SharedHarness):
    fault = ALONE


class TestAlone(RingConformance, RingRaceConformance, WholeConformance, EndToEndConformance):
    harness = AloneHarness


class TestAloneAgain(TestAlone):
    """For a race may be won by all once."""


class DropsHarness(SharedHarness):
    fault = DROPS


class TestDrops(RingRaceConformance):
    harness = DropsHarness


class TestDropsAgain(TestDrops):
    """As above."""


def _wrong(fault: str) -> type[BackendConformance]:
    harness = type("WrongHarness", (Harness,), {"fault": fault, "patience": 5.0})
    return type("TestWrong", (BackendConformance,), {"harness": harness})


globals().update({f"Test {fault}": _wrong(fault) for fault in CAUGHT_BY})
