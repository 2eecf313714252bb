"""Batches over the boundary: one end for each request, an answer or an error of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from sentra_kms.binding import Binding
from sentra_kms.context import WrapContext
from sentra_kms.errors import (
    DecryptionFailed,
    KMSError,
    PluginError,
    SecretNotFound,
    ServiceUnavailable,
    Throttled,
    UnsupportedOperation,
    VendorError,
)
from sentra_kms.events import Event, actor
from sentra_kms.hookspecs import BATCH_SIZE
from sentra_kms.hooktypes import (
    Remainder,
    SecretRequest,
    SecretValue,
    UnwrapRequest,
    WrappedKey,
    WrapRequest,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.binding.batches import BatchKeys, BatchSecrets, HistoryRings
from tests.binding.fakes import KEY, WHERE, Keys, Rings, Secrets, answer, bind
from tests.binding.test_binding import (
    PLANTED,
    Careless,
    PluginsOwn,
    VendorResponse,
    assert_nothing_foreign,
    vendor_failure,
)
from tests.conftest import ManualClock
from tests.ground.leaks import shows

Act = Callable[[str, dict[str, Any]], Any]


REQUESTS: dict[str, Callable[[int], Any]] = {
    "wrap_keys": lambda number: WrapRequest(KEY, WrapContext(f"t{number}", bytes(12), 1)),
    "unwrap_keys": lambda number: UnwrapRequest(WrappedKey(b"%d" % number, "id", None), WHERE),
    "fetch_secrets": lambda number: SecretRequest(Reference(f"fake://{number}")),
}
ENDS: dict[str, Callable[[int], Any]] = {
    "wrap_keys": lambda number: WrappedKey(b"wrapped %d" % number, "id", None),
    "unwrap_keys": lambda number: KeyMaterial(b"%032d" % number),
    "fetch_secrets": lambda number: SecretValue(KeyMaterial(b"secret %d" % number)),
}
SUBJECTS: dict[str, Callable[[int], str]] = {
    "wrap_keys": lambda _: "fake:k",
    "unwrap_keys": lambda _: "fake:k",
    "fetch_secrets": lambda number: f"fake://{number}",
}
EVERY = pytest.mark.parametrize("operation", REQUESTS)


def single(operation: str) -> str:
    """Return the operation that a batch is many of."""
    return operation.removesuffix("s")


def several(operation: str, count: int) -> list[Any]:
    """Return that many requests."""
    return [REQUESTS[operation](number) for number in range(count)]


def ends(operation: str, count: int) -> list[Any]:
    """Return a good answer to each of `several`."""
    return [ENDS[operation](number) for number in range(count)]


def ask(binding: Binding, operation: str, requests: Sequence[Any]) -> list[Any]:
    """Call the binding's batch method."""
    arguments = (requests,) if operation == "fetch_secrets" else ("k", requests)
    found: list[Any] = getattr(binding, operation)(*arguments)
    return found


def batched(act: Act, **options: Any) -> Binding:
    """Bind a backend whose parts take batches."""
    return bind(lambda: [BatchKeys(act), BatchSecrets(act), HistoryRings(act)], **options)


def looped(act: Act = answer, **options: Any) -> Binding:
    """Bind a backend whose parts take none."""
    return bind(lambda: [Keys(act), Secrets(act), Rings(act)], **options)


# --- a part that takes batches -----------------------------------------------------------------


@EVERY
def test_batch_is_one_call(operation: str) -> None:
    """All requests come in one call, with the timeout; each answer is the same object, in order."""
    seen: list[tuple[str, dict[str, Any]]] = []
    given = ends(operation, 3)

    def act(name: str, arguments: dict[str, Any]) -> Any:
        seen.append((name, arguments))
        return given

    requests = several(operation, 3)
    found = ask(batched(act, timeout=2.5), operation, requests)
    assert all(one is other for one, other in zip(found, given, strict=True))
    ((name, arguments),) = seen
    assert name == operation
    assert arguments.pop("key", "k") == "k"
    assert arguments == {"requests": tuple(requests), "timeout": 2.5}


@EVERY
@pytest.mark.parametrize("count", [0, 1, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 250])
def test_large_batch_is_cut(operation: str, count: int) -> None:
    """No call has more than 100 requests or none, and every end is at its request's place."""
    sizes: list[int] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        start = sum(sizes)
        sizes.append(len(arguments["requests"]))
        return [ENDS[name](start + number) for number in range(sizes[-1])]

    found = ask(batched(act), operation, several(operation, count))
    assert found == ends(operation, count)
    assert sum(sizes) == count
    assert all(0 < size <= BATCH_SIZE for size in sizes)


@EVERY
def test_tuple_of_ends_is_as_good(operation: str) -> None:
    """A hook may answer with a list or a tuple."""
    found = ask(batched(lambda *_: tuple(ends(operation, 2))), operation, several(operation, 2))
    assert found == ends(operation, 2)


@EVERY
def test_error_is_one_requests_own(operation: str) -> None:
    """An error among the ends arrives afresh at its place, the other answers arrive too."""
    raised = Throttled("slower", retry_after=2.5)
    raised.__cause__ = VendorError("HttpError", code="429")
    raised.__context__ = vendor_failure()
    given = [*ends(operation, 2), raised, ENDS[operation](3)]
    found = ask(batched(lambda *_: given), operation, several(operation, 4))
    assert [found[0], found[1], found[3]] == [given[0], given[1], given[3]]
    end = found[2]
    assert type(end) is Throttled
    assert end is not raised
    assert (end.message, end.retry_after) == ("slower", 2.5)
    assert (end.backend, end.operation, end.subject) == (
        "fake",
        single(operation),
        SUBJECTS[operation](2),
    )
    assert str(end.__cause__) == "HttpError 429"
    assert_nothing_foreign(end)


@EVERY
@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (vendor_failure(), PluginError),
        (KeyError("planted"), PluginError),
        (KeyboardInterrupt(), PluginError),
        (Careless(), DecryptionFailed),
        (PluginsOwn(), DecryptionFailed),
    ],
    ids=lambda value: type(value).__name__,
)
def test_vendors_error_is_no_end(operation: str, end: BaseException, kind: type[KMSError]) -> None:
    """A vendor's exception among the ends is a `PluginError` there, and nothing of it is kept."""
    given = [ENDS[operation](0), end]
    found = ask(batched(lambda *_: given), operation, several(operation, 2))
    assert found[0] is given[0]
    assert type(found[1]) is kind
    assert_nothing_foreign(found[1])


@EVERY
@pytest.mark.parametrize(
    "wrong", [None, "text", b"bytes", 0, [], KeyMaterial(PLANTED[:31]), VendorResponse()],
    ids=lambda wrong: type(wrong).__name__,
)  # fmt: skip
def test_end_of_the_wrong_kind(operation: str, wrong: object) -> None:
    """An end of another kind is refused at its place, told by its kind and not by its value."""
    given = [ENDS[operation](0), wrong, ENDS[operation](2)]
    found = ask(batched(lambda *_: given), operation, several(operation, 3))
    assert (found[0], found[2]) == (given[0], given[2])
    assert type(found[1]) is PluginError
    assert not shows(f"{found[1]} {found[1]!r} {vars(found[1])}", PLANTED)
    assert found[1].subject == SUBJECTS[operation](1)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_unwrapped_key_of_another_size(size: int) -> None:
    """A key of a batch has 32 bytes, as every tenant key."""
    given = [KeyMaterial((PLANTED * 2)[:size]), KEY]
    found = ask(batched(lambda *_: given), "unwrap_keys", several("unwrap_keys", 2))
    assert isinstance(found[0], PluginError)
    assert found[0].message.startswith(f"'fake:k' unwrapped {size} bytes")
    assert found[1] is KEY


WHOLES: dict[str, tuple[Callable[[str], Any], str]] = {
    "one too few": (lambda operation: ends(operation, 2), "2 ends for 3 requests"),
    "one too many": (lambda operation: ends(operation, 4), "4 ends for 3 requests"),
    "none": (lambda _: [], "0 ends for 3 requests"),
    "nothing": (lambda _: None, "NoneType, not a list"),
    "a generator": (lambda operation: (each for each in ends(operation, 3)), "generator, not a"),
    "a mapping": (
        lambda operation: dict.fromkeys(range(3), ends(operation, 3)),
        "dict, not a list",
    ),
    "text": (lambda _: "abc", "str, not a list"),
    "bytes": (lambda _: PLANTED[:3], "bytes, not a list"),
}


@EVERY
@pytest.mark.parametrize("fault", WHOLES)
def test_answer_that_is_not_one_end_a_request(operation: str, fault: str) -> None:
    """Where it cannot be said which end is whose, every request ends in a `PluginError`."""
    make, told = WHOLES[fault]
    events: list[Event] = []
    binding = batched(lambda *_: make(operation), emit=events.append)
    found = ask(binding, operation, several(operation, 3))
    assert [type(each) for each in found] == [PluginError] * 3
    assert all(f"answered {operation} with {told}" in each.message for each in found)
    assert [each.subject for each in found] == [SUBJECTS[operation](n) for n in range(3)]
    assert [event.outcome for event in events] == ["PluginError"] * 3


@EVERY
@pytest.mark.parametrize(
    ("error", "kind"),
    [(ServiceUnavailable("down"), ServiceUnavailable), (vendor_failure(), PluginError)],
    ids=["ours", "foreign"],
)
def test_what_a_batch_raises_is_every_requests_end(
    operation: str, error: Exception, kind: type[KMSError]
) -> None:
    """What a hook raises holds for all: each request ends in an error object of its own."""

    def act(name: str, arguments: dict[str, Any]) -> Any:
        held = PLANTED
        assert held
        raise error

    found = ask(batched(act), operation, several(operation, 3))
    assert [type(each) for each in found] == [kind] * 3
    assert len({id(each) for each in found}) == 3
    for number, each in enumerate(found):
        assert each.subject == SUBJECTS[operation](number)
        assert each.__traceback__ is None
        assert_nothing_foreign(each)


@EVERY
def test_failure_of_one_call_is_not_the_others(operation: str) -> None:
    """When a large batch is cut, a call that fails leaves what the others answered."""
    calls: list[int] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        calls.append(len(arguments["requests"]))
        if len(calls) == 2:
            raise ServiceUnavailable("down")
        return ends(name, calls[-1])

    found = ask(batched(act), operation, several(operation, 250))
    failed = [number for number, each in enumerate(found) if isinstance(each, KMSError)]
    assert failed == list(range(100, 200))


@EVERY
def test_events_of_a_batch(operation: str, clock: ManualClock) -> None:
    """Each request has an event as if it had been alone: its subject, outcome, version, actor."""
    events: list[Event] = []
    given = [ENDS[operation](0), SecretNotFound("none"), "wrong"]
    binding = batched(lambda *_: given, emit=events.append, clock=clock)
    with actor("user:42", request_id="r-1"):
        ask(binding, operation, several(operation, 3))
    assert [(each.operation, each.subject, each.outcome) for each in events] == [
        (single(operation), SUBJECTS[operation](0), "ok"),
        (single(operation), SUBJECTS[operation](1), "SecretNotFound"),
        (single(operation), SUBJECTS[operation](2), "PluginError"),
    ]
    assert {(each.backend, each.time, each.actor, each.request_id) for each in events} == {
        ("fake", clock.time, "user:42", "r-1")
    }
    assert not shows(repr(events), PLANTED)


@EVERY
def test_late_batch_is_used(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that comes late is used, and each of its events says so."""
    now = ManualClock(100.0)
    monkeypatch.setattr("time.monotonic", now)
    events: list[Event] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        now.advance(7.0)
        return ends(name, 2)

    found = ask(batched(act, emit=events.append), operation, several(operation, 2))
    assert found == ends(operation, 2)
    assert [(event.late, event.outcome) for event in events] == [(True, "ok")] * 2


# --- a part that takes none --------------------------------------------------------------------


@EVERY
def test_loop_over_the_single_hook(operation: str) -> None:
    """Without a batch hook the core asks one after the other; an error is one request's own."""
    asked: list[str] = []
    events: list[Event] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        asked.append(name)
        if len(asked) == 2:
            raise vendor_failure()
        return ENDS[operation](len(asked) - 1)

    found = ask(looped(act, emit=events.append), operation, several(operation, 3))
    assert asked == [single(operation)] * 3
    assert (found[0], found[2]) == (ENDS[operation](0), ENDS[operation](2))
    assert type(found[1]) is PluginError
    assert found[1].subject == SUBJECTS[operation](1)
    assert found[1].__traceback__ is None
    assert_nothing_foreign(found[1])
    assert [(event.operation, event.subject, event.outcome) for event in events] == [
        (single(operation), SUBJECTS[operation](0), "ok"),
        (single(operation), SUBJECTS[operation](1), "PluginError"),
        (single(operation), SUBJECTS[operation](2), "ok"),
    ]


@EVERY
def test_loop_passes_every_argument(operation: str) -> None:
    """The single hook gets of each request what it would get alone."""
    seen: list[dict[str, Any]] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        seen.append(arguments)
        return ENDS[operation](0)

    (request,) = several(operation, 1)
    ask(looped(act), operation, [request])
    wanted: dict[str, dict[str, Any]] = {
        "wrap_keys": {"key": "k", "material": KEY, "context": WrapContext("t0", bytes(12), 1)},
        "unwrap_keys": {"key": "k", "wrapped": WrappedKey(b"0", "id", None), "context": WHERE},
        "fetch_secrets": {"request": request},
    }
    assert seen == [{**wanted[operation], "timeout": 5.0}]


@EVERY
@pytest.mark.parametrize("bound", [batched, looped])
def test_batch_after_close(operation: str, bound: Callable[..., Binding]) -> None:
    """A closed backend refuses a batch as a whole, an empty one too."""
    binding = bound(answer)
    binding.close()
    for count in (0, 2):
        with pytest.raises(UnsupportedOperation, match="is closed"):
            ask(binding, operation, several(operation, count))


def test_batch_in_a_forked_child() -> None:
    """A child that begins with a batch has parts of its own."""

    def make() -> object:
        label = b"%d" % os.getpid()
        return BatchSecrets(lambda *_: [SecretValue(KeyMaterial(label))])

    binding = bind(make)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            (end,) = ask(binding, "fetch_secrets", several("fetch_secrets", 1))
            os.write(send, end.data.reveal())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as told:
        assert told.read() == b"%d" % child
    os.waitpid(child, 0)


# --- what a store still holds ------------------------------------------------------------------

REMAINS = [
    Remainder("versions under object lock", datetime(2027, 1, 1, tzinfo=UTC)),
    Remainder("backups", None),
]


@pytest.mark.parametrize("remains", [[], REMAINS[:1], REMAINS])
def test_purge_says_what_remains(remains: list[Remainder]) -> None:
    """What a store could not erase arrives: where it is, and until when."""
    seen: list[tuple[str, dict[str, Any]]] = []
    events: list[Event] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        seen.append((name, arguments))
        return remains

    found = batched(act, emit=events.append, timeout=2.5).purge_ring_history("acme")
    assert found == tuple(remains)
    assert seen == [("purge_ring_history", {"tenant": "acme", "timeout": 2.5})]
    assert [(event.operation, event.subject, event.outcome) for event in events] == [
        ("purge_ring_history", "acme", "ok")
    ]


def test_purge_that_the_store_cannot_do() -> None:
    """A store without the hook is not asked and is not taken to be clean."""
    with pytest.raises(UnsupportedOperation, match=r"history of 'acme'.*purge_ring_history"):
        looped().purge_ring_history("acme")


UNFIT: Any = lambda value: value  # noqa: E731 - records take anything when they are made


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (None, "with NoneType, not list"),
        ((), "with tuple, not list"),
        (["backups"], "with str, not Remainder"),
        ([REMAINS[0], None], "with NoneType, not Remainder"),
        ([Remainder("", None)], "a Remainder whose place is empty"),
        ([Remainder("backups", UNFIT("2027"))], "a Remainder whose until is str"),
        (
            [Remainder("backups", datetime(2027, 1, 1))],  # noqa: DTZ001 - the fault
            "a Remainder whose until has no time zone",
        ),
    ],
)
def test_purge_that_answers_wrongly(wrong: object, told: str) -> None:
    """An answer that does not say what remains is refused: nobody may take it for nothing."""
    with pytest.raises(PluginError) as caught:
        batched(lambda *_: wrong).purge_ring_history("acme")
    assert told in caught.value.message


def test_purge_that_raises() -> None:
    """A vendor's exception does not escape from it either."""

    def act(name: str, arguments: dict[str, Any]) -> Any:
        raise vendor_failure()

    with pytest.raises(PluginError) as caught:
        batched(act).purge_ring_history("acme")
    assert_nothing_foreign(caught.value)
