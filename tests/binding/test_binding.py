"""The boundary to a backend: errors, answers, events, fork and close."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any
from unittest.mock import Mock

import pytest

from sentra_kms import errors
from sentra_kms.binding import Binding
from sentra_kms.errors import (
    AccessDenied,
    DecryptionFailed,
    KMSError,
    PluginError,
    ServiceUnavailable,
    TenantNotFound,
    Throttled,
    UnsupportedOperation,
    VendorError,
)
from sentra_kms.events import Event, actor
from sentra_kms.hookspecs import PartHooks, hookimpl
from sentra_kms.hooktypes import (
    Finding,
    KeyDescription,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial
from sentra_kms.reference import Reference
from tests.binding.fakes import ANSWERS, KEY, WHERE, Checked, Keys, Rings, Secrets, answer, bind
from tests.conftest import ManualClock
from tests.ground.leaks import chain, frames, locals_inside, shows

PLANTED = KEY.reveal()
REFERENCE = Reference("fake://path#field")
WAIT = 60.0  # seconds after which a test that hangs fails

CALLS: dict[str, Callable[[Binding], object]] = {
    "wrap_key": lambda binding: binding.wrap_key("k", KEY, WHERE),
    "unwrap_key": lambda binding: binding.unwrap_key("k", WrappedKey(b"w", "id", None), WHERE),
    "describe_key": lambda binding: binding.describe_key("k"),
    "fetch_secret": lambda binding: binding.fetch_secret(SecretRequest(REFERENCE)),
    "load_ring": lambda binding: binding.load_ring("acme"),
    "save_ring": lambda binding: binding.save_ring("acme", b"ring", "1"),
    "list_rings": lambda binding: binding.list_rings(None, 10),
}
SUBJECTS = {
    "wrap_key": "fake:k",
    "unwrap_key": "fake:k",
    "describe_key": "fake:k",
    "fetch_secret": "fake://path#field",
    "load_ring": "acme",
    "save_ring": "acme",
    "list_rings": "*",
}
EVERY = pytest.mark.parametrize("operation", CALLS)


def whole(act: Callable[[str, dict[str, Any]], Any] = answer, **options: Any) -> Binding:
    """Bind a backend that has every operation."""
    return bind(lambda: [Keys(act), Rings(act), Secrets(act)], **options)


def raising(error: BaseException) -> Callable[[str, dict[str, Any]], Any]:
    """Return what raises the error for every operation."""

    def act(operation: str, arguments: dict[str, Any]) -> Any:
        held = PLANTED  # as a vendor's frame holds a key
        assert held
        raise error

    return act


def fail(operation: str, error: BaseException, **options: Any) -> KMSError:
    """Return what a caller sees when the hook raises the error."""
    with pytest.raises(KMSError) as caught:
        CALLS[operation](whole(raising(error), **options))
    return caught.value


# --- what passes through -----------------------------------------------------------------------


@EVERY
def test_answer_passes(operation: str) -> None:
    """What the backend answers is what the caller gets, the same object."""
    assert CALLS[operation](whole()) is ANSWERS[operation]


def test_operation_that_no_part_has_is_unsupported() -> None:
    """Who asks for it is told so; the backend's author is not blamed, and nothing is asked."""
    events: list[Event] = []
    binding = bind(Rings, emit=events.append)
    with pytest.raises(UnsupportedOperation, match="does not implement describe_key") as caught:
        binding.describe_key("k")
    assert (caught.value.backend, caught.value.operation) == ("fake", "describe_key")
    assert not events


def test_arguments_pass_with_the_timeout() -> None:
    """Every argument reaches the hook, and the timeout is the configured one in seconds."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def act(operation: str, arguments: dict[str, Any]) -> Any:
        seen.append((operation, arguments))
        return ANSWERS[operation]

    binding = whole(act, timeout=2.5)
    wrapped = WrappedKey(b"w", "id", "3")
    request = SecretRequest(REFERENCE)
    binding.wrap_key("k", KEY, WHERE)
    binding.unwrap_key("k", wrapped, WHERE)
    binding.describe_key("k")
    binding.load_ring("acme")
    binding.save_ring("acme", b"ring", None)
    binding.list_rings("cursor", 7)
    binding.fetch_secret(request)
    assert seen == [
        ("wrap_key", {"key": "k", "material": KEY, "context": WHERE, "timeout": 2.5}),
        ("unwrap_key", {"key": "k", "wrapped": wrapped, "context": WHERE, "timeout": 2.5}),
        ("describe_key", {"key": "k", "timeout": 2.5}),
        ("load_ring", {"tenant": "acme", "timeout": 2.5}),
        (
            "save_ring",
            {"tenant": "acme", "document": b"ring", "expected": None, "timeout": 2.5},
        ),
        ("list_rings", {"cursor": "cursor", "limit": 7, "timeout": 2.5}),
        ("fetch_secret", {"request": request, "timeout": 2.5}),
    ]


def test_two_backends_answer_for_themselves() -> None:
    """Each backend has hooks of its own: nobody answers for another."""
    one = bind(lambda: Keys(lambda *_: KeyDescription("one", None)), name="one")
    two = bind(lambda: Keys(lambda *_: KeyDescription("two", None)), name="two")
    for _ in range(2):
        assert one.describe_key("k").key_id == "one"
        assert two.describe_key("k").key_id == "two"


def test_one_part_need_not_be_in_a_list() -> None:
    """`create` may return a single part."""
    assert bind(Keys).describe_key("k") == KeyDescription("id", None)


@EVERY
def test_hook_runs_in_the_callers_thread(operation: str) -> None:
    """Nothing stands between caller and hook: thread-local state is the caller's."""
    seen: list[int] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        seen.append(threading.get_ident())
        return ANSWERS[name]

    CALLS[operation](whole(act))
    assert seen == [threading.get_ident()]


@EVERY
def test_hook_runs_in_many_threads_at_once(operation: str) -> None:
    """No call waits for another: eight are inside the hook together."""
    inside = threading.Barrier(8)

    def act(name: str, arguments: dict[str, Any]) -> Any:
        inside.wait(WAIT)
        return ANSWERS[name]

    binding = whole(act)
    ends: list[object] = []
    threads = [
        threading.Thread(target=lambda: ends.append(CALLS[operation](binding))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert ends == [ANSWERS[operation]] * 8


# --- a vendor's exception ----------------------------------------------------------------------


class VendorResponse:
    """What a vendor's exception keeps, and nobody outside may reach."""

    def __init__(self) -> None:
        self.body = PLANTED


class VendorFailure(Exception):  # noqa: N818 - vendors name as they like
    def __init__(self) -> None:
        super().__init__("planted text", PLANTED)
        self.response = VendorResponse()


def vendor_failure() -> VendorFailure:
    """Return a vendor's exception with a cause, a context, a note, and frames that hold keys."""

    def deep() -> None:
        held = PLANTED
        try:
            raise ValueError(held)  # noqa: TRY301
        except ValueError as inner:
            failure = VendorFailure()
            failure.add_note(repr(held))
            raise failure from inner

    try:
        deep()
    except VendorFailure as failure:
        return failure
    raise AssertionError


FOREIGN = (VendorFailure, VendorResponse, ValueError, OSError)


def assert_nothing_foreign(error: BaseException) -> None:
    """Walk all that is reachable from an error as errors are walked."""
    for each in chain(error):
        assert isinstance(each, (KMSError, VendorError)), each
        assert type(each).__module__ == "sentra_kms.errors"
        assert not hasattr(each, "__notes__")
        for value in vars(each).values():
            assert value is None or type(value) in {str, bool, float, int}
        assert all(type(argument) is str for argument in each.args)
    for frame in frames(error):
        name = frame.f_globals["__name__"]
        assert not name.startswith("pluggy"), frame
        assert name != "tests.binding.fakes" or frame.f_code.co_name == "bind", frame
        assert frame.f_code.co_name not in {"act", "deep"}, frame
        if name.startswith("sentra_kms"):
            for value in frame.f_locals.values():
                assert not isinstance(value, (*FOREIGN, FrameType)), frame
    told = "\n".join(f"{each} {each!r} {vars(each)!r}" for each in chain(error))
    assert not shows(told + locals_inside(error), PLANTED)


@EVERY
def test_vendor_exception_does_not_escape(operation: str) -> None:
    """What is not ours becomes a `PluginError`, and only its type's name is told."""
    error = fail(operation, vendor_failure())
    assert type(error) is PluginError
    assert error.message == (
        f"backend 'fake' let VendorFailure escape from {operation}: its author must map it"
    )
    assert (error.backend, error.operation, error.subject) == (
        "fake",
        operation,
        SUBJECTS[operation],
    )
    cause = error.__cause__
    assert type(cause) is VendorError
    assert (cause.type, cause.code, cause.message, cause.request_id) == (
        "VendorFailure",
        None,
        "",
        None,
    )
    assert error.__context__ is None
    assert_nothing_foreign(error)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("planted"),
        OSError(5, "planted"),
        UnicodeDecodeError("utf-8", PLANTED + b"\xff", 32, 33, "planted"),
        RecursionError(),
        StopIteration("planted"),
        AssertionError("planted"),
        NotImplementedError(),
        MemoryError(),
        ExceptionGroup("planted", [ValueError(PLANTED)]),
        VendorError("planted"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exception_of_any_kind_is_caught(error: Exception) -> None:
    """Whatever class an exception has, a `PluginError` arrives."""
    arrived = fail("wrap_key", error)
    assert type(arrived) is PluginError
    assert "planted" not in str(arrived)
    assert_nothing_foreign(arrived)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_ends_a_program_passes(error: BaseException) -> None:
    """An interrupt is no failure of a backend and is not swallowed."""
    with pytest.raises(type(error)):
        CALLS["wrap_key"](whole(raising(error)))


def reachable(error: BaseException) -> Iterator[object]:
    """Yield all that the garbage collector reaches from an error and its tracebacks.

    Of frames their locals. Modules, classes, functions and the backend itself, which hold the
    program and not the failure, are not entered; nor are this file's own frames, nor the key that
    the caller gave.
    """
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, (ModuleType, type, FunctionType, MethodType, Binding, KeyMaterial)):
            continue
        if isinstance(each, FrameType):
            if each.f_code.co_filename != __file__:
                pending += each.f_locals.values()
            continue
        pending += [*gc.get_referents(each), getattr(each, "__dict__", None)]


@EVERY
@pytest.mark.parametrize("whose", ["vendor's", "ours", "careless"])
def test_nothing_foreign_is_reachable(operation: str, whose: str) -> None:
    """Whatever way references lead, from error or traceback none leads to a vendor's object."""
    raised: Exception = vendor_failure()
    if whose != "vendor's":
        ours = Careless() if whose == "careless" else ServiceUnavailable("down")
        ours.__cause__, ours.__context__ = raised, vendor_failure()
        raised = ours
    error = fail(operation, raised)
    found = list(reachable(error))
    frames_of = [each for each in found if isinstance(each, FrameType)]
    assert {"_call", "_ask"} <= {each.f_code.co_name for each in frames_of}
    for each in found:
        assert not isinstance(each, FOREIGN), type(each)
        assert each is not PLANTED
        assert not (isinstance(each, BaseException) and each is raised)
    names = {each.f_code.co_name for each in frames_of if each.f_code.co_filename == __file__}
    assert not names & {"act", "deep", "vendor_failure"}


def test_what_is_reachable_would_be_seen() -> None:
    """The walk above finds a vendor's object behind a cause, and on an attribute."""
    held = ServiceUnavailable("down")
    held.__cause__ = VendorError("x")
    held.__cause__.__context__ = vendor_failure()
    assert any(isinstance(each, VendorResponse) for each in reachable(held))
    attribute = ServiceUnavailable("down")
    attribute.backend = {"deep": [vendor_failure()]}  # type: ignore[assignment]
    assert any(isinstance(each, VendorFailure) for each in reachable(attribute))


def test_vendor_exception_is_let_go() -> None:
    """While a caller keeps our error, nothing keeps the vendor's object."""

    def act(operation: str, arguments: dict[str, Any]) -> Any:
        failure = vendor_failure()
        gone.append(weakref.ref(failure.response))
        raise failure

    gone: list[weakref.ref[VendorResponse]] = []
    binding = whole(act)
    with pytest.raises(PluginError) as caught:
        binding.load_ring("acme")
    gc.collect()
    assert [each() for each in gone] == [None]
    assert caught.value.message


def test_caller_in_a_handler_keeps_its_own_context() -> None:
    """An error that is raised while a caller handles one has that as its context, nothing else."""
    binding = whole(raising(vendor_failure()))
    mine = RuntimeError("mine")
    try:
        raise mine
    except RuntimeError:
        with pytest.raises(PluginError) as caught:
            binding.load_ring("acme")
    assert caught.value.__context__ is mine


# --- an error of ours --------------------------------------------------------------------------


OURS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, KMSError) and kind is not KMSError
]


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("operation", ["wrap_key", "load_ring", "fetch_secret"])
def test_error_of_ours_arrives_afresh(kind: type[KMSError], operation: str) -> None:
    """Its class and words arrive; the plugin's frames, context and notes do not."""
    raised = kind("what happened", retryable=True)
    raised.__context__ = vendor_failure()
    raised.__cause__ = vendor_failure()
    raised.add_note("planted note")
    error = fail(operation, raised)
    assert error is not raised
    assert type(error) is kind
    assert error.message == "what happened"
    assert error.retryable is True
    assert (error.backend, error.operation, error.subject) == (
        "fake",
        operation,
        SUBJECTS[operation],
    )
    assert error.__cause__ is None
    assert_nothing_foreign(error)


def test_what_the_backend_said_of_itself_is_kept() -> None:
    """Attributes that the backend set are its own to set."""
    raised = Throttled(
        "slower", retry_after=2.5, backend="b", operation="o", subject="s", retryable=False
    )
    error = fail("wrap_key", raised)
    assert isinstance(error, Throttled)
    assert vars(error) == vars(raised)


def test_what_the_vendor_said_is_kept() -> None:
    """A `VendorError` cause arrives as text, without the frames that it was raised in."""
    raised = ServiceUnavailable("down")
    try:
        raise VendorError("HttpError", code="503", message="busy", request_id="r-1")  # noqa: TRY301
    except VendorError as said:
        raised.__cause__ = said
    error = fail("load_ring", raised)
    cause = error.__cause__
    assert type(cause) is VendorError
    assert repr(cause) == ("VendorError('HttpError', code='503', message='busy', request_id='r-1')")
    assert cause.__traceback__ is None
    assert_nothing_foreign(error)


class PluginsOwn(DecryptionFailed):
    """A plugin's subclass that was made without care."""

    def __init__(self) -> None:  # without super().__init__
        self.response = VendorResponse()


class Careless(DecryptionFailed):
    """A plugin's subclass that keeps more than it should."""

    def __init__(self) -> None:
        super().__init__("no")
        self.response = VendorResponse()


def test_subclass_of_ours_arrives_as_ours() -> None:
    """A plugin's subclass is raised as the class that it derives from."""
    error = fail("unwrap_key", Careless())
    assert type(error) is DecryptionFailed
    assert error.message == "no"
    assert_nothing_foreign(error)


def test_subclass_of_ours_that_was_never_initialised() -> None:
    """Even an error of ours that lacks its message gets no foreign object past the boundary."""
    error = fail("unwrap_key", PluginsOwn())
    assert type(error) in {DecryptionFailed, PluginError}
    assert_nothing_foreign(error)


@pytest.mark.parametrize("field", ["message", "code", "request_id", "type"])
def test_vendor_error_that_holds_a_foreign_object(field: str) -> None:
    """A plugin that puts an exception where a text belongs does not smuggle it out."""
    raised = ServiceUnavailable("down")
    said = VendorError("HttpError")
    setattr(said, field, vendor_failure())
    raised.__cause__ = said
    assert_nothing_foreign(fail("load_ring", raised))


@pytest.mark.parametrize("field", ["backend", "operation", "subject", "retryable"])
def test_error_of_ours_that_holds_a_foreign_object(field: str) -> None:
    """Nor does one that puts it on an attribute of our error."""
    raised = ServiceUnavailable("down")
    setattr(raised, field, vendor_failure())
    assert_nothing_foreign(fail("load_ring", raised))


def test_same_error_raised_twice() -> None:
    """A plugin that keeps one error object and raises it again gives each caller a new one."""
    raised = TenantNotFound("none")
    binding = whole(raising(raised))
    seen: list[KMSError] = []
    for _ in range(2):
        with pytest.raises(TenantNotFound) as caught:
            binding.load_ring("acme")
        seen.append(caught.value)
    assert seen[0] is not seen[1]
    assert raised.backend is None


def test_error_while_the_parts_are_made_is_ours() -> None:
    """What `create` raises does not escape as a vendor's object either."""

    def make() -> object:
        raise vendor_failure()

    with pytest.raises(PluginError, match="VendorFailure") as caught:
        bind(make)
    for each in chain(caught.value):
        assert not isinstance(each, FOREIGN)


def test_error_of_ours_while_the_parts_are_made() -> None:
    """An error of ours from `create` arrives with its class and words."""

    def make() -> object:
        raise errors.ConfigurationError("no such mount")

    with pytest.raises(errors.ConfigurationError, match="no such mount"):
        bind(make)


@pytest.mark.parametrize("kind", [errors.SecretNotFound, errors.KeyNotFound, TenantNotFound])
@pytest.mark.parametrize("backend", [None, "fake", "file"])
def test_backend_that_cannot_be_made_has_not_answered(
    kind: type[errors.NotFound], backend: str | None
) -> None:
    """What `create` does not find is nothing that was asked for: no chain goes on because of it.

    A backend is also made when a secret is first asked of it, and in a forked child.
    """

    def make() -> object:
        raise kind("/run/secrets/token does not exist", backend=backend)

    with pytest.raises(errors.ConfigurationError, match="/run/secrets/token does not") as caught:
        bind(make)
    assert (caught.value.backend, caught.value.operation) == ("fake", "create")


# --- answers of the wrong kind -----------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(
    "wrong", [None, "text", b"bytes", 0, True, [], {}, KeyMaterial(PLANTED[:31]), VendorResponse()],
    ids=lambda wrong: type(wrong).__name__,
)  # fmt: skip
def test_answer_of_the_wrong_kind(operation: str, wrong: object) -> None:
    """An answer of another kind is the plugin's fault, told by the kinds and not by the value."""
    if operation == "save_ring" and wrong == "text":
        wrong = None
    with pytest.raises(PluginError) as caught:
        CALLS[operation](whole(lambda *_: wrong))
    error = caught.value
    assert (error.backend, error.operation, error.subject) == (
        "fake",
        operation,
        SUBJECTS[operation],
    )
    if not isinstance(wrong, KeyMaterial):
        assert f"answered {operation} with {type(wrong).__name__}, not " in error.message
    assert "planted" not in error.message


@EVERY
def test_coroutine_that_a_plain_hook_returns(
    operation: str, recwarn: pytest.WarningsRecorder
) -> None:
    """A coroutine is no answer; it is refused, and nobody is warned that it was not awaited."""

    async def later() -> Any:
        return ANSWERS[operation]

    binding = whole(lambda *_: later())
    with pytest.raises(PluginError, match="with coroutine, not "):
        CALLS[operation](binding)
    gc.collect()
    assert [str(each.message) for each in recwarn if "coroutine" in str(each.message)] == []


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_unwrapped_key_of_another_size(size: int) -> None:
    """A tenant key has 32 bytes; the error says how many came, and none of them."""
    data = (PLANTED * 2)[:size]
    with pytest.raises(PluginError, match=f"'fake:k' unwrapped {size} bytes") as caught:
        CALLS["unwrap_key"](whole(lambda *_: KeyMaterial(data)))
    assert caught.value.operation == "unwrap_key"
    assert "planted" not in str(caught.value)


UNFIT: Any = lambda value: value  # noqa: E731 - records take anything when they are made


class BrokenZone(tzinfo):
    """A time zone of a vendor's that raises when it is asked."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        """Raise."""
        raise VendorFailure

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Say nothing."""

    def tzname(self, moment: datetime | None) -> str | None:
        """Say nothing."""


WRONG_FIELDS: dict[str, tuple[str, object, str]] = {
    "a wrap without a ciphertext": (
        "wrap_key",
        WrappedKey(b"", "id", None),
        "WrappedKey whose ciphertext is empty",
    ),
    "a wrap of text": ("wrap_key", WrappedKey(UNFIT("w"), "id", None), "ciphertext is str"),
    "a wrap without a key id": ("wrap_key", WrappedKey(b"w", "", None), "key_id is empty"),
    "a version of no text": ("wrap_key", WrappedKey(b"w", "id", "\ud800"), "key_version is empty"),
    "a version that is a number": (
        "describe_key",
        KeyDescription("id", UNFIT(3)),
        "key_version is int",
    ),
    "a secret of bytes": ("fetch_secret", SecretValue(UNFIT(b"x")), "data is bytes"),
    "an empty version": ("fetch_secret", SecretValue(KEY, version=""), "version is empty"),
    "an expiry of text": (
        "fetch_secret",
        SecretValue(KEY, expires=UNFIT("2026-11-26")),
        "expires is str",
    ),
    "an expiry in seconds": (
        "fetch_secret",
        SecretValue(KEY, expires=UNFIT(1.0)),
        "expires is float",
    ),
    "an expiry of no time zone": (
        "fetch_secret",
        SecretValue(KEY, expires=datetime(2026, 11, 26)),  # noqa: DTZ001 - the fault
        "expires has no time zone: make it aware",
    ),
    "an expiry of a broken time zone": (
        "fetch_secret",
        SecretValue(KEY, expires=datetime(2026, 11, 26, tzinfo=BrokenZone())),
        "expires has no time zone",
    ),
    "a making of text": (
        "fetch_secret",
        SecretValue(KEY, created=UNFIT("2026-11-26")),
        "created is str",
    ),
    "a making of no time zone": (
        "fetch_secret",
        SecretValue(KEY, created=datetime(2026, 11, 26)),  # noqa: DTZ001 - the fault
        "created has no time zone: make it aware",
    ),
    "a lease in words": ("fetch_secret", SecretValue(KEY, leased=UNFIT("yes")), "leased is str"),
    "a ring of text": ("load_ring", StoredRing(UNFIT("ring"), "1"), "document is str"),
    "a ring without a revision": ("load_ring", StoredRing(b"ring", ""), "revision is empty"),
    "a page that is a list": ("list_rings", RingPage(UNFIT(["acme"]), None), "tenants is list"),
    "a page of bytes": (
        "list_rings",
        RingPage(UNFIT(("acme", b"globex")), None),
        "tenants holds one that is bytes",
    ),
    "a page of nothing": ("list_rings", RingPage(("acme", ""), None), "tenants holds one that is"),
    "an empty cursor": ("list_rings", RingPage(("acme",), ""), "cursor is empty"),
    "no revision": ("save_ring", "", "text that is empty or no text"),
    "a revision of no text": ("save_ring", "\ud800", "text that is empty or no text"),
}


@pytest.mark.parametrize("fault", WRONG_FIELDS)
def test_field_of_the_wrong_kind(fault: str) -> None:
    """A record's fields are checked, since a record takes anything when it is made."""
    operation, wrong, told = WRONG_FIELDS[fault]
    with pytest.raises(PluginError) as caught:
        CALLS[operation](whole(lambda *_: wrong))
    assert told in caught.value.message
    assert caught.value.operation == operation


class Derived(WrappedKey, frozen=True):
    """A record of a plugin's own, whose fields may be anything at each look."""


DERIVED_KEY: Any = type("DerivedKey", (KeyMaterial,), {"__slots__": (), "reveal": vendor_failure})
ALIKE: dict[str, tuple[str, Callable[[], object], str]] = {
    "a record derived from ours": ("wrap_key", lambda: Derived(b"w", "id", None), "Derived"),
    "a key derived from ours": ("unwrap_key", lambda: DERIVED_KEY(bytes(32)), "DerivedKey"),
    "a mock of a key": ("unwrap_key", lambda: Mock(spec=KeyMaterial), "Mock"),
    "a mock of a record": ("wrap_key", lambda: Mock(spec=WrappedKey), "Mock"),
    "text derived from text": ("save_ring", lambda: type("Text", (str,), {})("1"), "Text"),
}


@pytest.mark.parametrize("fault", ALIKE)
def test_answer_that_passes_for_a_record(fault: str) -> None:
    """What is like one of our records, or says so, runs foreign code wherever it is read."""
    operation, make, kind = ALIKE[fault]
    with pytest.raises(PluginError, match=f"answered {operation} with {kind}, not"):
        CALLS[operation](whole(lambda *_: make()))


class Guarded(AccessDenied):
    """A plugin's own error, which raises when it is read."""

    @property
    def subject(self) -> str:
        """Raise."""
        raise vendor_failure()

    @subject.setter
    def subject(self, value: object) -> None: ...


class SecretiveError(VendorError):
    """What the vendor said, which raises when it is read."""

    @property
    def code(self) -> str:
        """Raise."""
        raise vendor_failure()

    @code.setter
    def code(self, value: object) -> None: ...


def caused(error: KMSError, cause: VendorError) -> KMSError:
    """Return an error with a cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("operation", ["wrap_key", "load_ring", "fetch_secret"])
@pytest.mark.parametrize(
    "make", [lambda: Guarded("no"), lambda: caused(AccessDenied("no"), SecretiveError("x"))]
)
def test_error_of_ours_that_raises_when_it_is_read(
    operation: str, make: Callable[[], KMSError]
) -> None:
    """It is a fault of its author's: what it raises does not get past the boundary either."""
    error = make()
    with pytest.raises(PluginError, match=f"let {type(error).__name__} escape") as caught:
        CALLS[operation](whole(raising(error)))
    assert caught.value.__context__ is None


def test_page_that_leads_to_itself() -> None:
    """A store that gives the cursor back that it was given would be listed for ever."""
    binding = whole(lambda *_: RingPage(("acme",), "here"))
    assert binding.list_rings(None, 10).cursor == "here"
    assert binding.list_rings("before", 10).cursor == "here"
    with pytest.raises(PluginError, match="a list would never end") as caught:
        binding.list_rings("here", 10)
    assert caught.value.operation == "list_rings"


def test_expiry_that_is_aware() -> None:
    """An expiry with a time zone, any, is taken."""
    zone = timezone(timedelta(hours=5, minutes=30))
    value = SecretValue(KEY, expires=datetime(2026, 11, 26, tzinfo=zone))
    assert CALLS["fetch_secret"](whole(lambda *_: value)) is value


# --- events ------------------------------------------------------------------------------------


@EVERY
def test_event_of_a_success(operation: str, clock: ManualClock) -> None:
    """Each operation emits one event: who was asked for what, and when."""
    events: list[Event] = []
    CALLS[operation](whole(emit=events.append, clock=clock))
    (event,) = events
    assert (event.backend, event.operation, event.subject) == (
        "fake",
        operation,
        SUBJECTS[operation],
    )
    assert event.outcome == "ok"
    assert event.time == clock.time
    assert 0 <= event.latency < 5
    assert event.late is False
    assert (event.actor, event.request_id) == (None, None)
    assert not shows(repr(event), PLANTED)


VERSIONED = {
    "wrap_key": (WrappedKey(b"w", "id", "v7"), "v7"),
    "unwrap_key": (KEY, None),
    "describe_key": (KeyDescription("id", "v7"), "v7"),
    "fetch_secret": (SecretValue(KEY, version="v7"), "v7"),
    "load_ring": (StoredRing(b"ring", "r9"), "r9"),
    "save_ring": ("r9", "r9"),
    "list_rings": (RingPage(("acme",), "acme"), None),
}


@EVERY
def test_event_names_the_version(operation: str) -> None:
    """The version of the KEK, secret or ring that was answered is in the event, if there is one."""
    events: list[Event] = []
    answered, version = VERSIONED[operation]
    CALLS[operation](whole(lambda *_: answered, emit=events.append))
    assert [event.version for event in events] == [version]


@EVERY
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TenantNotFound("none"), "TenantNotFound"),
        (Throttled("slower"), "Throttled"),
        (KeyError("planted"), "PluginError"),
        (Careless(), "DecryptionFailed"),
    ],
)
def test_event_of_a_failure(operation: str, error: Exception, outcome: str) -> None:
    """A failure's event is named after the error that the caller sees."""
    events: list[Event] = []
    seen = fail(operation, error, emit=events.append)
    assert [event.outcome for event in events] == [outcome]
    assert type(seen).__name__ == outcome
    assert "planted" not in repr(events)


@EVERY
def test_event_of_an_answer_of_the_wrong_kind(operation: str) -> None:
    """An answer that the caller never gets is no success in the audit either."""
    events: list[Event] = []
    with pytest.raises(PluginError):
        CALLS[operation](whole(lambda *_: None, emit=events.append))
    assert [event.outcome for event in events] == ["PluginError"]


def test_event_of_an_unwrapped_key_of_another_size() -> None:
    """Nor is a key that was refused for its size."""
    events: list[Event] = []
    with pytest.raises(PluginError):
        CALLS["unwrap_key"](whole(lambda *_: KeyMaterial(b"short"), emit=events.append))
    assert [event.outcome for event in events] == ["PluginError"]


def test_event_names_the_actor() -> None:
    """Whoever acts is in the event, with the request."""
    events: list[Event] = []
    binding = whole(emit=events.append)
    with actor("user:42", request_id="r-1"):
        binding.load_ring("acme")
    binding.load_ring("acme")
    assert [(event.actor, event.request_id) for event in events] == [
        ("user:42", "r-1"),
        (None, None),
    ]


def test_event_of_a_late_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer after the timeout is used, and its event says that it was late."""
    now = ManualClock(100.0)
    monkeypatch.setattr("time.monotonic", now)
    events: list[Event] = []

    def act(operation: str, arguments: dict[str, Any]) -> Any:
        now.advance(durations.pop())
        return ANSWERS[operation]

    durations = [1.0, 1.0 + 2**-10, 0.5]
    binding = whole(act, emit=events.append, timeout=1.0)
    for _ in range(3):
        assert binding.load_ring("acme") is ANSWERS["load_ring"]
    assert [(event.late, event.latency) for event in events] == [
        (False, 0.5),
        (True, 1.0 + 2**-10),
        (False, 1.0),
    ]
    assert {event.outcome for event in events} == {"ok"}


def test_hook_that_sleeps_past_its_timeout() -> None:
    """By the real clock, too: nobody interrupts it, its answer is used, and the event is late."""
    events: list[Event] = []

    def act(operation: str, arguments: dict[str, Any]) -> Any:
        threading.Event().wait(arguments["timeout"] * 10)
        return ANSWERS[operation]

    binding = whole(act, emit=events.append, timeout=0.002)
    assert binding.load_ring("acme") is ANSWERS["load_ring"]
    assert [(event.late, event.outcome) for event in events] == [(True, "ok")]


def test_event_of_a_late_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that comes late is both."""
    now = ManualClock(100.0)
    monkeypatch.setattr("time.monotonic", now)
    events: list[Event] = []

    def act(operation: str, arguments: dict[str, Any]) -> Any:
        now.advance(7.0)
        raise TenantNotFound("none")

    with pytest.raises(TenantNotFound):
        whole(act, emit=events.append).load_ring("acme")
    assert [(event.outcome, event.late) for event in events] == [("TenantNotFound", True)]


def test_without_anybody_to_tell() -> None:
    """Nobody has to listen."""
    assert whole(emit=None).load_ring("acme").revision == "1"


# --- what it can do ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "has", "lacks"),
    [
        (Keys, "unwrap_key", "load_ring"),
        (Rings, "list_rings", "wrap_key"),
        (Secrets, "fetch_secret", "ring_auth_key"),
    ],
)
def test_require(make: Callable[[], object], has: str, lacks: str) -> None:
    """What no part implements is refused before it is called, with why it was needed."""
    binding = bind(make)
    binding.require(has, "because")
    with pytest.raises(UnsupportedOperation, match=f"because, but backend 'fake'.*{lacks}") as seen:
        binding.require(lacks, "because")
    assert (seen.value.backend, seen.value.operation) == ("fake", lacks)


def test_operation_that_no_part_has_is_an_error_of_ours() -> None:
    """A call without `require` before it is no foreign error either."""
    with pytest.raises(KMSError):
        bind(Keys).load_ring("acme")


def test_check_collects_all_parts() -> None:
    """Every part's findings are heard, in one list."""
    binding = bind(lambda: [Checked("a"), Checked("b"), Keys()], timeout=3.0)
    assert {(each.subject, each.message) for each in binding.check()} == {
        ("a", "well within 3 s"),
        ("b", "well within 3 s"),
    }


class Ill(PartHooks):
    """A part whose `check` and `close` raise."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Raise."""
        raise self._error

    @hookimpl
    def close(self) -> None:
        """Raise."""
        raise self._error


@pytest.mark.parametrize("place", [0, 1, 2])
def test_part_whose_check_raises_silences_no_other(place: int) -> None:
    """What one part raises is a finding among those of all the others, and one event tells it."""
    events: list[Event] = []
    parts: list[object] = [Checked("a"), Checked("b")]
    parts.insert(place, Ill(ServiceUnavailable("the vault is sealed: unseal it")))
    findings = bind(lambda: parts, emit=events.append).check()
    assert sorted((each.level, each.subject) for each in findings) == [
        ("error", "fake"),
        ("ok", "a"),
        ("ok", "b"),
    ]
    assert "the vault is sealed: unseal it" in {each.message for each in findings}
    assert [(event.operation, event.outcome) for event in events] == [
        ("check", "ServiceUnavailable")
    ]


def test_check_that_raises_a_foreign_error() -> None:
    """It is told by its kind."""
    (found,) = bind(lambda: Ill(vendor_failure())).check()
    assert found.level == "error"
    assert "let VendorFailure escape from check" in found.message


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "text",
        [1],
        [("ok", "a", "b")],
        3,
        [Finding(UNFIT("bad"), "a", "b")],
        [Finding("ok", UNFIT(3), "b")],
        [Finding("ok", "a", "\ud800")],
        [Finding("ok", "a", "")],
        [Finding("ok", "a", "b", UNFIT(None))],
        iter([Finding("ok", "x", "b")]),
        [Mock(spec=Finding)],
    ],
)
def test_check_that_answers_with_no_findings(wrong: Any) -> None:
    """It is told, and the other parts are heard all the same."""

    class Broken(PartHooks):
        @hookimpl
        def check(self, timeout: float) -> list[Finding]:
            """Answer with something else."""
            return wrong  # type: ignore[no-any-return]

    found = bind(lambda: [Checked("a"), Broken(), Checked("b")]).check()
    levels = {each.subject: each.level for each in found}
    assert levels.pop("a") == levels.pop("b") == "ok"
    assert levels == {"fake": "error"}


# --- close -------------------------------------------------------------------------------------


def test_check_tells_what_is_wrong_with_one_finding() -> None:
    """The part's others are kept, and the value itself is not shown."""
    good = Finding("warning", "a", "is so", "")

    class Careless(PartHooks):
        @hookimpl
        def check(self, timeout: float) -> list[Finding]:
            """Answer with one that is right, and one of a level that there is not."""
            return [good, Finding(UNFIT("planted"), "b", "is so")]

    kept, told = bind(Careless).check()
    assert kept == good
    assert told.message.endswith("a Finding whose level is none of ok, warning, error")


def test_close_reaches_every_part_once() -> None:
    """Every part is closed, and closing again does nothing."""
    log: list[str] = []
    binding = bind(lambda: [Checked("a", log), Checked("b", log)])
    binding.close()
    binding.close()
    assert sorted(log) == ["a", "b"]


def test_close_from_many_threads_is_one_close() -> None:
    """However many threads close at once, each part is closed once."""
    log: list[str] = []
    binding = bind(lambda: [Checked("a", log)])
    gate = threading.Barrier(8)

    def close() -> None:
        gate.wait()
        binding.close()

    threads = [threading.Thread(target=close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log == ["a"]


@EVERY
def test_use_after_close(operation: str) -> None:
    """A closed backend is not asked, and the error says what to do."""
    asked: list[str] = []

    def act(name: str, arguments: dict[str, Any]) -> Any:
        asked.append(name)
        return ANSWERS[name]

    binding = whole(act)
    binding.close()
    with pytest.raises(UnsupportedOperation, match=r"'fake' is closed: load\(\) again") as caught:
        CALLS[operation](binding)
    assert caught.value.backend == "fake"
    assert asked == []


# --- fork --------------------------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> str:
    """Return what a forked child tells of some work, as text."""
    sys.stdout.flush()
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(int(WAIT))  # a child that hangs is a failure, and not a test that never ends
        told = ""
        try:
            told = repr(work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            told = f"raised {error!r}"
        finally:
            os.write(send, told.encode())
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as answered:
        told = answered.read()
    assert os.waitpid(child, 0)[1] == 0
    return told


class Numbered:
    """Makes parts that answer with the process and the number that they were made in."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> object:
        """Make a keys part and count it."""
        self.made += 1
        label = f"{os.getpid()} {self.made}"
        return Keys(lambda *_: KeyDescription(label, None))


def test_parts_are_made_anew_in_a_forked_child() -> None:
    """A child does not use its parent's connections; the parent keeps its own."""
    make = Numbered()
    binding = bind(make)
    mine = f"{os.getpid()} 1"
    assert binding.describe_key("k").key_id == mine

    def work() -> list[bool]:
        ids = [binding.describe_key("k").key_id for _ in range(3)]
        return [each == f"{os.getpid()} 2" for each in ids]

    assert in_child(work) == "[True, True, True]"
    assert binding.describe_key("k").key_id == mine
    assert make.made == 1


def test_parts_are_made_anew_in_a_grandchild() -> None:
    """Each fork makes its own."""
    binding = bind(Numbered())

    def work() -> str:
        binding.describe_key("k")
        return in_child(lambda: binding.describe_key("k").key_id.split()[1])

    assert in_child(work) == repr(repr("3"))


def test_parts_are_made_once_for_all_threads_of_a_child() -> None:
    """Threads that come first together do not make several."""
    make = Numbered()
    binding = bind(make)

    def work() -> int:
        gate = threading.Barrier(8)

        def ask() -> None:
            gate.wait()
            binding.describe_key("k")

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return make.made

    assert in_child(work) == "2"


def test_fork_while_another_thread_holds_the_lock() -> None:
    """A child is not held up by a lock that nobody in it can release."""
    binding = bind(Numbered())
    binding._lock.acquire()
    try:
        assert in_child(lambda: binding.describe_key("k").key_id.split()[1]) == repr("2")
    finally:
        binding._lock.release()


def test_closed_in_the_parent_is_closed_in_the_child() -> None:
    """A fork does not open what was closed."""
    make = Numbered()
    binding = bind(make)
    binding.close()
    told = in_child(lambda: binding.describe_key("k"))
    assert told.startswith("raised UnsupportedOperation")


def test_close_in_a_child_leaves_the_parents_connections_alone() -> None:
    """A child that closes what it never used does not say goodbye in its parent's name."""
    log: list[str] = []
    binding = bind(lambda: Checked(f"made by {os.getpid()}", log))
    parent = f"made by {os.getpid()}"

    def work() -> bool:
        binding.close()
        return parent in log

    assert in_child(work) == "False"
    binding.close()
    assert log == [parent]


def test_fork_in_the_middle_of_a_call() -> None:
    """A child forked while another thread is inside a hook has parts of its own at once.

    What the hook held, a lock or a half-read answer, is the parent's; there the call goes on.
    """
    inside, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def make() -> object:
        lock = threading.Lock()
        made.append(os.getpid())
        label = f"{os.getpid()} {len(made)}"

        def act(operation: str, arguments: dict[str, Any]) -> Any:
            with lock:
                if len(made) == 1:
                    inside.set()
                    assert go_on.wait(WAIT)
                return KeyDescription(label, None)

        return Keys(act)

    binding = bind(make)
    answered: list[KeyDescription] = []
    caller = threading.Thread(target=lambda: answered.append(binding.describe_key("k")))
    caller.start()
    assert inside.wait(WAIT)
    told = in_child(lambda: binding.describe_key("k").key_id == f"{os.getpid()} 2")
    assert answered == []
    go_on.set()
    caller.join(WAIT)
    assert told == "True"
    assert answered == [KeyDescription(f"{os.getpid()} 1", None)]
    assert made == [os.getpid()]


def test_hook_that_forks() -> None:
    """A hook may fork: its child's call ends as it began, and the next one has parts of its own."""
    make = Numbered()
    children: list[int] = []

    def make_forking() -> object:
        make()
        label = f"{os.getpid()} {make.made}"

        def act(operation: str, arguments: dict[str, Any]) -> Any:
            if make.made == 1 and not children:
                children.append(os.fork())
            return KeyDescription(label, None)

        return Keys(act)

    parent = os.getpid()
    binding = bind(make_forking)
    receive, send = os.pipe()
    first = binding.describe_key("k").key_id
    if os.getpid() != parent:
        os.write(send, f"{first}, {binding.describe_key('k').key_id}".encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as told:
        assert told.read() == f"{parent} 1, {children[0]} 2"
    os.waitpid(children[0], 0)
    assert binding.describe_key("k").key_id == f"{parent} 1"
