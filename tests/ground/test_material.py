"""`KeyMaterial` and `Secret` show their bytes on no path that a value takes by accident."""

from __future__ import annotations

import copy
import dataclasses
import hmac
import io
import json
import logging
import marshal
import pickle
import pprint
import string
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, SupportsIndex

import msgspec
import pytest

from sentra_kms.errors import ConfigurationError, MalformedInput
from sentra_kms.hooktypes import SecretValue
from sentra_kms.material import KeyMaterial, Secret
from tests.ground.leaks import everything, shows

TEXT = b"planted-secret-value-0123456789!"
BINARY = bytes(range(200, 232))

Value = KeyMaterial | Secret
Show = Callable[[Any], str | bytes]

KINDS = [KeyMaterial, Secret]
PLANTED = [pytest.param(TEXT, id="text"), pytest.param(BINARY, id="binary")]


@dataclasses.dataclass
class Loud:
    """What a careless class would be: the control that shows that each path is seen to leak."""

    data: bytes

    def __format__(self, spec: str) -> str:
        return f"{self!r} {spec}"


@dataclasses.dataclass
class Holder:
    inner: Any


class Row(NamedTuple):
    inner: Any


class Record(msgspec.Struct):
    inner: Any


class FrozenRecord(msgspec.Struct, frozen=True):
    inner: Any


# --- paths that print something ----------------------------------------------------------------


def _raise_with(*arguments: Any) -> BaseException:
    try:
        raise RuntimeError(*arguments)  # noqa: TRY301
    except RuntimeError as error:
        return error


def _traceback_of_locals(value: Any) -> str:
    inner = value
    around = [inner, {"key": inner}, (inner,), Holder(inner), Row(inner), Record(inner)]
    try:
        raise RuntimeError(len(around))  # noqa: TRY301
    except RuntimeError as error:
        return "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )


def _rich_traceback(value: Any) -> str:
    console_module = pytest.importorskip("rich.console")
    traceback_module = pytest.importorskip("rich.traceback")
    inner = value
    around = [inner, {"key": inner}, Holder(inner)]
    output = io.StringIO()
    console = console_module.Console(file=output, width=300, force_terminal=False)
    try:
        raise RuntimeError(len(around))  # noqa: TRY301
    except RuntimeError:
        console.print(
            traceback_module.Traceback(show_locals=True, width=300, locals_max_string=500)
        )
    return output.getvalue()


def _rich_pretty(value: Any) -> str:
    pretty = pytest.importorskip("rich.pretty")
    return str(pretty.pretty_repr([value, {"key": value}, Holder(value)], expand_all=True))


def _rich_print(value: Any) -> str:
    console_module = pytest.importorskip("rich.console")
    output = io.StringIO()
    console = console_module.Console(file=output, width=300, force_terminal=False)
    console.print(value, [value], {"key": value})
    console.print("%s", value)
    return output.getvalue()


def _logged(message: str, *arguments: Any, fail: Any = None) -> str:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    records: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        records.append(record)
        return True

    handler.addFilter(keep)
    logger = logging.Logger("leaks")  # noqa: LOG001
    logger.addHandler(handler)
    if fail is None:
        logger.warning(message, *arguments)
    else:
        local = fail
        try:
            raise RuntimeError(local)  # noqa: TRY301
        except RuntimeError:
            logger.exception(message, *arguments)
    return output.getvalue() + repr([vars(record) for record in records])


def _pprinted(value: Any) -> str:
    output = io.StringIO()
    pprint.pprint([value, {"key": value}, Holder(value)], stream=output, width=20)
    return output.getvalue()


def _string_template(value: Any) -> str:
    return string.Template("$value").substitute(value=value)


SHOWN: dict[str, Show] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format without a specification": format,
    "format as text": lambda value: format(value, "s"),
    "format to a width": lambda value: format(value, "80"),
    "format aligned": lambda value: format(value, ">80"),
    "format centred": lambda value: f"{value:*^80}",
    "format as hex": lambda value: format(value, "x"),
    "format by a free specification": lambda value: format(value, "%H"),
    "f-string": lambda value: f"{value}",
    "f-string !r": lambda value: f"{value!r}",
    "f-string !s": lambda value: f"{value!s}",
    "f-string !a": lambda value: f"{value!a}",
    "f-string =": lambda value: f"{value=}",
    "f-string !r to a width": lambda value: f"{value!r:>99}",
    "str.format": lambda value: "{} {0!r}".replace("{}", "{0}").format(value),
    "%s": lambda value: "%s" % (value,),  # noqa: UP031
    "%r": lambda value: "%r" % (value,),  # noqa: UP031
    "%a": lambda value: "%a" % (value,),  # noqa: UP031
    "string.Template": _string_template,
    "join of reprs": lambda value: " ".join(map(repr, [value])),
    "in a list": lambda value: repr([value]),
    "in a dict": lambda value: str({"key": value}),
    "in a tuple": lambda value: repr((value,)),
    "in a dataclass": lambda value: repr(Holder(value)),
    "in a named tuple": lambda value: repr(Row(value)),
    "in a msgspec record": lambda value: repr(Record(value)),
    "dataclasses.asdict": lambda value: repr(dataclasses.asdict(Holder(value))),
    "dataclasses.astuple": lambda value: repr(dataclasses.astuple(Holder(value))),
    "msgspec.structs.asdict": lambda value: repr(msgspec.structs.asdict(Record(value))),
    "json with default=str": lambda value: json.dumps(value, default=str),
    "json with default=repr": lambda value: json.dumps({"key": value}, default=repr),
    "msgspec json with enc_hook=str": lambda v: msgspec.json.encode([_bare(v)], enc_hook=str),
    "msgspec json with enc_hook=repr": lambda v: msgspec.json.encode([_bare(v)], enc_hook=repr),
    "msgspec msgpack with enc_hook=repr": lambda v: msgspec.msgpack.encode(
        [_bare(v)], enc_hook=repr
    ),
    "copy": lambda value: repr(copy.copy(value)),
    "deepcopy": lambda value: repr(copy.deepcopy([value])),
    "exception arguments": lambda value: repr(_raise_with(value).args),
    "str of an exception": lambda value: str(_raise_with(value)),
    "str of an exception with several arguments": lambda value: str(_raise_with("no", value)),
    "repr of an exception": lambda value: repr(_raise_with(value)),
    "traceback of an exception": lambda value: "".join(
        traceback.format_exception(_raise_with(value))
    ),
    "traceback with locals": _traceback_of_locals,
    "logging %s": lambda value: _logged("got %s", value),
    "logging %r": lambda value: _logged("got %r", value),
    "logging the value itself": lambda value: _logged(value),  # noqa: PLW0108
    "logging with exc_info": lambda value: _logged("got %r", value, fail=value),
    "pprint": _pprinted,
    "pprint.pformat": lambda value: pprint.pformat({"key": [value]}),
    "rich.pretty": _rich_pretty,
    "rich print": _rich_print,
    "rich.traceback with locals": _rich_traceback,
}


class _Opaque:
    """Stands in for `Loud` where a library would read a dataclass by itself."""

    def __init__(self, loud: Loud) -> None:
        self._loud = loud

    def __repr__(self) -> str:
        return repr(self._loud)


def _bare(value: Any) -> Any:
    return _Opaque(value) if isinstance(value, Loud) else value


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_path_shows_nothing(show: Show, kind: type[Value], planted: bytes) -> None:
    """The path prints something, and the value's bytes are not in it."""
    output = show(kind(planted))
    assert output
    assert not shows(output, planted)


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_path_would_show_careless_value(show: Show, planted: bytes) -> None:
    """Each of these paths does show a value of a class that takes no care."""
    assert shows(show(Loud(planted)), planted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "show", [repr, str, "{0}".format, "{0!r}".format, "{0:s}".format], ids=range(5)
)
def test_redacted_text_names_its_class(show: Callable[[Any], str], kind: type[Value]) -> None:
    """A reader of a log sees what stood there, and that it was left out."""
    assert show(kind(TEXT)) == f"{kind.__name__}(redacted)"


@pytest.mark.parametrize("kind", KINDS)
def test_size_does_not_show(kind: type[Value]) -> None:
    """A short value and a long one print alike."""
    assert repr(kind(b"")) == repr(kind(b"x" * 4096))


@pytest.mark.parametrize("kind", KINDS)
def test_dir_lists_names_only(kind: type[Value]) -> None:
    """What `dir` lists are names, and no bytes are among them."""
    assert "reveal" in dir(kind(TEXT))
    assert not shows(repr(dir(kind(TEXT))), TEXT)


def test_version_and_expiry_do_not_make_a_secret_talk() -> None:
    """A secret with a version and an expiry prints as redacted as one without."""
    secret = Secret(TEXT, version="3", expires=datetime(2030, 1, 1, tzinfo=UTC))
    assert repr(secret) == "Secret(redacted)"


# --- paths that refuse -------------------------------------------------------------------------


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _pickled(protocol: int, value: Any) -> bytes:
    return pickle.dumps(value, protocol)


def _pickled_within(protocol: int, value: Any) -> bytes:
    return pickle.dumps(Holder(value), protocol)


def _reduced(protocol: SupportsIndex, value: Any) -> object:
    return object.__reduce_ex__(value, protocol)


REFUSED: dict[str, Callable[[Any], object]] = {
    "json.dumps": json.dumps,
    "json.dumps in a dict": lambda value: json.dumps({"key": value}),
    "json.dumps as a dict key": lambda value: json.dumps({value: 1}),
    "msgspec json": msgspec.json.encode,
    "msgspec json in a record": lambda value: msgspec.json.encode(FrozenRecord(value)),
    "msgspec json in a hook's record": lambda value: msgspec.json.encode(SecretValue(value)),
    "msgspec msgpack": msgspec.msgpack.encode,
    "msgspec msgpack in a record": lambda value: msgspec.msgpack.encode(FrozenRecord(value)),
    "msgspec to_builtins": msgspec.to_builtins,
    "msgspec to_builtins with str keys": lambda v: msgspec.to_builtins({"k": v}, str_keys=True),
    "msgspec to_builtins in a record": lambda value: msgspec.to_builtins(FrozenRecord(value)),
    "msgspec convert from attributes": lambda value: msgspec.convert(
        value, Record, from_attributes=True
    ),
    "marshal": marshal.dumps,
    "marshal in a list": lambda value: marshal.dumps([value]),
    **{f"pickle protocol {each}": partial(_pickled, each) for each in PROTOCOLS},
    **{f"pickle protocol {each} in a record": partial(_pickled_within, each) for each in PROTOCOLS},
    **{f"object.__reduce_ex__({each})": partial(_reduced, each) for each in PROTOCOLS},
    "pickle by the Python pickler": lambda value: pickle._Pickler(io.BytesIO()).dump(value),
    "__reduce__": lambda value: value.__reduce__(),
    "__reduce_ex__": lambda value: value.__reduce_ex__(4),
    "vars": vars,
    "__dict__": lambda value: value.__dict__,
    "__getstate__": lambda value: value.__getstate__(),
    "hash": hash,
    "as a member of a set": lambda value: {value},
    "as a key of a dict": lambda value: {value: 1},
    "bool": bool,
    "if": lambda value: 1 if value else 2,
    "not": lambda value: not value,
    "and": lambda value: value and 1,
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "len": len,
    "iteration": list,
    "index": lambda value: value[0],
    "join": lambda value: b"".join([value]),
    "concatenation": lambda value: b"" + value,
    "int": int,
    "dataclasses.asdict of the value itself": dataclasses.asdict,
    "ordering": lambda value: value < value,  # noqa: PLR0124 - the point is that it has no order
    "format by %d": lambda value: "%d" % value,  # noqa: UP031
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_use_is_refused(use: Callable[[Any], object], kind: type[Value], planted: bytes) -> None:
    """The use fails, and its error with all frames and locals shows nothing."""
    value = kind(planted)
    del planted
    with pytest.raises((TypeError, ValueError, AttributeError, msgspec.ValidationError)) as caught:
        use(value)
    told = everything(caught.value)
    assert not shows(
        told, value.reveal() if isinstance(value, KeyMaterial) else value.reveal_bytes()
    )


def test_pickling_refusal_says_what_to_do() -> None:
    """Who meets the refusal learns the other way."""
    with pytest.raises(TypeError, match="KeyMaterial is never pickled: pass a reference"):
        pickle.dumps(KeyMaterial(TEXT))


# --- what the values are -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_the_value_itself(kind: type[Value]) -> None:
    """A copy makes no second copy of the bytes."""
    value = kind(TEXT)
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value
    assert copy.deepcopy({"key": [value]})["key"][0] is value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["_data", "version", "expires", "new"])
def test_attributes_cannot_be_set(kind: type[Value], name: str) -> None:
    """No attribute can be set, neither one that exists nor another."""
    value = kind(TEXT)
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(value, name, b"other")
    assert value == kind(TEXT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["_data", "version", "new"])
def test_attributes_cannot_be_deleted(kind: type[Value], name: str) -> None:
    """No attribute can be deleted."""
    value = kind(TEXT)
    with pytest.raises(AttributeError, match="cannot be changed"):
        delattr(value, name)
    assert value == kind(TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_bytes_are_equal(kind: type[Value]) -> None:
    """Two values of the same bytes are equal, and one bit makes them differ."""
    assert kind(TEXT) == kind(bytes(TEXT))
    assert kind(TEXT) != kind(TEXT[:-1] + b"?")
    assert kind(TEXT) != kind(TEXT + b"!")
    assert kind(b"") == kind(b"")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [TEXT, TEXT.decode(), None, 0, [TEXT], bytearray(TEXT)])
def test_value_equals_nothing_of_another_type(kind: type[Value], other: object) -> None:
    """A comparison with raw bytes is false, so that it cannot be used to guess."""
    assert kind(TEXT) != other
    assert not kind(TEXT) == other  # noqa: SIM201 - both operators are to be asked


def test_key_equals_no_secret() -> None:
    """The two kinds are never equal, even over the same bytes."""
    assert KeyMaterial(TEXT) != Secret(TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_comparison_takes_constant_time(kind: type[Value], monkeypatch: pytest.MonkeyPatch) -> None:
    """Equality is decided by the comparison that does not stop at the first difference."""
    compared: list[tuple[bytes, bytes]] = []
    genuine = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return genuine(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert kind(TEXT) != kind(BINARY)
    assert compared == [(TEXT, BINARY)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data",
    ["text", bytearray(b"x"), memoryview(b"x"), None, 5, [1]],
    ids=lambda d: type(d).__name__,
)
def test_only_bytes_are_taken(kind: type[Value], data: Any) -> None:
    """What could change underneath, or is not bytes, is refused by its type's name alone."""
    with pytest.raises(TypeError, match=f"bytes, not {type(data).__name__}$"):
        kind(data)


def test_subclass_of_bytes_is_refused() -> None:
    """A subclass of bytes could print itself or change; it is refused without being shown."""

    class Noisy(bytes):
        pass

    with pytest.raises(TypeError) as caught:
        KeyMaterial(Noisy(TEXT))
    assert not shows(str(caught.value), TEXT)


def test_reveal_returns_what_was_put_in() -> None:
    """The one way to the bytes gives exactly them."""
    assert KeyMaterial(BINARY).reveal() == BINARY
    assert Secret(BINARY).reveal_bytes() == BINARY
    assert Secret("grüße".encode()).reveal() == "grüße"


def test_secret_keeps_version_and_expiry() -> None:
    """Version and expiry are readable, and absent unless given."""
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    secret = Secret(TEXT, version="3", expires=expires)
    assert (secret.version, secret.expires) == ("3", expires)
    assert (Secret(TEXT).version, Secret(TEXT).expires) == (None, None)


def test_secret_that_is_not_text_is_refused_without_showing_it() -> None:
    """`reveal()` of bytes that are no UTF-8 names the other way; the codec's error is not kept."""
    secret = Secret(BINARY)
    with pytest.raises(MalformedInput, match="reveal_bytes") as caught:
        secret.reveal()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not shows(everything(caught.value), BINARY)


@pytest.mark.parametrize("kind", KINDS)
def test_our_errors_that_are_given_a_value_show_nothing(kind: type[Value]) -> None:
    """An error of ours that somebody hands a value prints it as redacted, pickled or not."""
    error = ConfigurationError(f"no good: {kind(TEXT)}", subject=str(kind(TEXT)))
    assert not shows(everything(error), TEXT)
    assert not shows(pickle.dumps(error), TEXT)
