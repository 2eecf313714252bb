"""The error tree is the one that is drawn, and its errors survive the ways that errors travel."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import re
import traceback
from typing import Any

import pytest

import sentra_kms
from sentra_kms import errors
from sentra_kms.errors import (
    Conflict,
    DecryptionFailed,
    KMSError,
    NotFound,
    ServiceUnavailable,
    TenantNotFound,
    Throttled,
    Timeout,
    VendorError,
    afresh,
)
from tests.ground.leaks import chain, frames

CLASSES = {
    name: member
    for name, member in vars(errors).items()
    if inspect.isclass(member) and issubclass(member, BaseException)
}
OURS = [member for member in CLASSES.values() if issubclass(member, KMSError)]
FIELDS: dict[str, Any] = {
    "backend": "vault-eu",
    "operation": "wrap_key",
    "subject": "vault-eu:tenants",
    "retryable": True,
}
RETRYABLE = {Conflict, ServiceUnavailable, Throttled, Timeout}


def drawn_tree() -> dict[str, str | None]:
    """Return each class that the docstring draws, with its parent."""
    parents: dict[str, str | None] = {}
    above: dict[int, str] = {}
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        parents[found[2]] = above[depth - 1] if depth else None
        above[depth] = found[2]
    return parents


def test_drawn_tree_is_the_tree() -> None:
    """The docstring draws every class, each under the class that it inherits from."""
    actual = {
        name: next((each.__name__ for each in member.__bases__ if each in CLASSES.values()), None)
        for name, member in CLASSES.items()
    }
    assert drawn_tree() == actual


def test_tree_is_the_one_that_was_designed() -> None:
    """The tree has these branches; a change of it is a change of the public face."""
    tree = drawn_tree()
    assert {name for name, parent in tree.items() if parent is None} == {"KMSError", "VendorError"}
    assert {name for name, parent in tree.items() if parent == "NotFound"} == {
        "TenantNotFound",
        "KeyNotFound",
        "SecretNotFound",
    }
    assert {name for name, parent in tree.items() if parent == "ServiceUnavailable"} == {
        "Throttled",
        "Timeout",
    }
    assert {name for name, parent in tree.items() if parent == "KMSError"} == {
        "ConfigurationError",
        "PluginError",
        "UnsupportedOperation",
        "NotFound",
        "AlreadyExists",
        "AuthenticationFailed",
        "AccessDenied",
        "KeyUnavailable",
        "DecryptionFailed",
        "RingRejected",
        "Conflict",
        "ServiceUnavailable",
        "AuditFailed",
        "MalformedInput",
    }


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_is_exported(name: str) -> None:
    """Whoever imports the package can catch every error."""
    assert getattr(sentra_kms, name) is CLASSES[name]
    assert name in sentra_kms.__all__


@pytest.mark.parametrize("kind", OURS)
def test_defaults(kind: type[KMSError]) -> None:
    """What is not given is `None`; only what may pass by itself is retryable."""
    error = kind("what happened")
    assert str(error) == error.message == "what happened"
    assert error.args == ("what happened",)
    assert (error.backend, error.operation, error.subject) == (None, None, None)
    assert error.retryable is (kind in RETRYABLE)


@pytest.mark.parametrize("kind", OURS)
def test_attributes_are_kept(kind: type[KMSError]) -> None:
    """Each error carries what it is given, and `retryable` overrides the default both ways."""
    error = kind("what happened", **FIELDS)
    assert {name: getattr(error, name) for name in FIELDS} == FIELDS
    assert kind("", retryable=False).retryable is False


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("name", [*FIELDS, "message"])
def test_attributes_are_keyword_only(kind: type[KMSError], name: str) -> None:
    """A second positional argument is an error in the caller's code."""
    with pytest.raises(TypeError):
        kind("what happened", FIELDS.get(name))  # type: ignore[call-arg]


def build(kind: type[KMSError]) -> KMSError:
    """Return an error with every attribute set."""
    if issubclass(kind, Throttled):
        return kind("what happened", retry_after=2.5, **FIELDS)
    return kind("what happened", **FIELDS)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", OURS)
def test_pickling_keeps_everything(kind: type[KMSError], protocol: int) -> None:
    """An error crosses a process pool with its class, message and every attribute."""
    error = build(kind)
    back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - made here
    assert type(back) is kind
    assert back.args == error.args
    assert vars(back) == vars(error)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
def test_copy_keeps_everything(kind: type[KMSError], make_copy: Any) -> None:
    """A copy is an equal error of its own."""
    error = build(kind)
    back = make_copy(error)
    assert back is not error
    assert type(back) is kind
    assert (back.args, vars(back)) == (error.args, vars(error))


def test_throttled_keeps_when_to_come_back() -> None:
    """`retry_after` is the service's own word in seconds, or `None`."""
    assert Throttled("slower", retry_after=2.5).retry_after == 2.5
    assert Throttled("slower").retry_after is None


# --- afresh ------------------------------------------------------------------------------------


class ForeignObject:
    """Something of a vendor's that must stay behind."""


class ForeignError(DecryptionFailed):
    """A plugin's own class of one of our errors."""

    def __init__(self, message: str) -> None:
        super().__init__(message, subject="s")
        self.client = ForeignObject()


@pytest.mark.parametrize("kind", OURS)
def test_afresh_is_an_equal_error(kind: type[KMSError]) -> None:
    """It has the class, the message and every attribute, and is another object."""
    error = build(kind)
    fresh = afresh(error)
    assert fresh is not error
    assert type(fresh) is kind
    assert fresh.args == error.args
    assert vars(fresh) == vars(error)


def test_afresh_of_a_foreign_class_is_its_nearest_of_ours() -> None:
    """A plugin's subclass becomes ours, and what the plugin kept on it stays behind."""
    fresh = afresh(ForeignError("no"))
    assert type(fresh) is DecryptionFailed
    assert fresh.subject == "s"
    assert not hasattr(fresh, "client")


def test_afresh_of_a_class_that_passes_for_ours() -> None:
    """What a class says of its module makes it none of ours."""
    claiming = type("Claiming", (DecryptionFailed,), {"__module__": "sentra_kms.errors"})
    assert type(afresh(claiming("no"))) is DecryptionFailed


@pytest.mark.parametrize("wait", ["5", True, -1, -0.5, float("nan"), float("inf"), 10**400, b"5"])
def test_afresh_keeps_no_odd_time_to_wait(wait: Any) -> None:
    """A `retry_after` that is no number of seconds to come is none: it is calculated with."""
    assert afresh(Throttled("slower", retry_after=wait)).retry_after is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("wait", [None, 0, 3, 2.5])
def test_afresh_keeps_a_time_to_wait(wait: float | None) -> None:
    """A number of seconds is kept, also in a subclass of a plugin's own."""
    slower = type("Slower", (Throttled,), {})
    assert afresh(slower("slower", retry_after=wait)).retry_after == wait  # type: ignore[attr-defined]


def test_afresh_makes_text_that_can_be_written() -> None:
    """Half a character is written out, since no log and no terminal takes it."""
    error = NotFound("none: \ud800 é", subject="\udcff")
    assert (afresh(error).message, afresh(error).subject) == ("none: \\ud800 é", "\\udcff")


def test_afresh_leaves_frames_context_and_notes_behind() -> None:
    """Nothing of the way that the error came is reachable from the fresh one."""

    def plugin() -> None:
        vendor_object = ForeignObject()
        try:
            raise OSError(vendor_object)  # noqa: TRY301
        except OSError:
            error = TenantNotFound("none")
            error.add_note(repr(vendor_object))
            raise error  # noqa: B904 - a plugin that forgets `from`

    with pytest.raises(TenantNotFound) as caught:
        plugin()
    assert isinstance(caught.value.__context__, OSError)
    fresh = afresh(caught.value)
    assert fresh.__traceback__ is None
    assert fresh.__context__ is None
    assert fresh.__cause__ is None
    assert not hasattr(fresh, "__notes__")


def test_afresh_keeps_what_the_vendor_said() -> None:
    """A `VendorError` cause is kept as a new object with the same four texts and no frames."""

    def plugin() -> None:
        try:
            raise VendorError("HttpError", code="503", message="down", request_id="r-1")  # noqa: TRY301
        except VendorError as said:
            raise ServiceUnavailable("down") from said

    with pytest.raises(ServiceUnavailable) as caught:
        plugin()
    fresh = afresh(caught.value)
    cause = fresh.__cause__
    assert isinstance(cause, VendorError)
    assert cause is not caught.value.__cause__
    assert repr(cause) == repr(caught.value.__cause__)
    assert [each.__traceback__ for each in chain(fresh)] == [None, None]
    assert list(frames(fresh)) == []


def test_afresh_drops_a_foreign_cause() -> None:
    """A cause that is not our `VendorError` stays behind."""
    with pytest.raises(NotFound) as caught:
        raise NotFound("none") from OSError("vendor")
    assert afresh(caught.value).__cause__ is None


def test_afresh_of_a_class_of_ours_with_a_vendor_subclass_cause() -> None:
    """A plugin's subclass of `VendorError` arrives as the plain one."""

    class Talkative(VendorError):  # noqa: N818 - plugins name as they like
        def __init__(self) -> None:
            super().__init__("HttpError", code="500")
            self.response = ForeignObject()

    with pytest.raises(ServiceUnavailable) as caught:
        raise ServiceUnavailable("down") from Talkative()
    cause = afresh(caught.value).__cause__
    assert type(cause) is VendorError
    assert not hasattr(cause, "response")


def test_afresh_keeps_no_object_alive() -> None:
    """When the original is gone, so is what it held."""
    error = ForeignError("no")
    held = id(error.client)
    fresh = afresh(error)
    del error
    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, ForeignObject)]
    assert held not in map(id, alive)
    assert fresh.message == "no"


# --- VendorError -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (VendorError("OSError"), "OSError"),
        (VendorError("OSError", code="EIO"), "OSError EIO"),
        (VendorError("OSError", message="disk"), "OSError: disk"),
        (VendorError("OSError", code="EIO", message="disk"), "OSError EIO: disk"),
        (VendorError("OSError", code="", message="disk"), "OSError : disk"),
    ],
)
def test_vendor_error_as_text(error: VendorError, text: str) -> None:
    """It prints its type, code and message, as many as there are."""
    assert str(error) == text


def test_vendor_error_shows_all_in_its_repr() -> None:
    """Its repr has all four parts."""
    error = VendorError("HttpError", code="503", message="down", request_id="r-1")
    assert repr(error) == ("VendorError('HttpError', code='503', message='down', request_id='r-1')")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_vendor_error_is_pickled_whole(protocol: int) -> None:
    """It crosses a process pool with all four parts."""
    error = VendorError("HttpError", code="503", message="down", request_id="r-1")
    back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - made here
    assert type(back) is VendorError
    assert vars(back) == vars(error)
    assert repr(back) == repr(error)


def test_vendor_error_is_no_error_of_ours() -> None:
    """Whoever catches `KMSError` does not meet it alone."""
    assert not issubclass(VendorError, KMSError)


def test_vendor_error_prints_in_the_traceback() -> None:
    """A person who reads the traceback sees what the vendor said."""
    error = ServiceUnavailable("down")
    error.__cause__ = VendorError("HttpError", code="503", request_id="r-1")
    printed = "".join(traceback.format_exception(error))
    assert "VendorError: HttpError 503" in printed
    assert "direct cause" in printed
