"""What a secret's value is: fields, transforms, newlines, templates, fallbacks."""

from __future__ import annotations

import base64
import io
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sentra_kms
from sentra_kms.errors import (
    AccessDenied,
    AuthenticationFailed,
    ConfigurationError,
    KMSError,
    MalformedInput,
    PluginError,
    SecretNotFound,
    ServiceUnavailable,
)
from sentra_kms.hooktypes import SecretValue
from sentra_kms.material import KeyMaterial, Secret
from sentra_kms.reference import Reference
from sentra_kms.secrets.template import parse_template, render
from sentra_kms.secrets.transforms import apply, drop_newline, pick_field
from tests.conftest import ManualClock
from tests.ground.leaks import shows, told_by
from tests.secrets.sources import Source, make_manager

PLANTED = b"planted-s3cr3t-value"
ODD = [
    b"100%",
    b"a@b/c:d?e#f",
    b"two\nlines",
    b"nul\x00byte",
    "gr\u00fcn".encode(),
    b" ",
    b"%41",
    b"+",
]


def value_of(document: bytes, reference: str) -> bytes:
    """Return a field of a document."""
    return pick_field(KeyMaterial(document), Reference(reference)).reveal()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", b"a b"),
        ("quoted", b'say "hi"\n'),
        ("unicode", "gr\u00fcn \U0001f512".encode()),
        ("number", b"5.10"),
        ("large", b"123456789012345678901234567890"),
        ("true", b"true"),
        ("object", b'{"b": {"c":"deep"}}'),
        ("/object/b/c", b"deep"),
        ("/list/1", b"two"),
        ("/list", b'["one", "two"]'),
        ("a~1b", None),
        ("/a~1b", b"slash"),
        ("/", b"empty key"),
        ("empty", b""),
    ],
)
def test_field_of_a_document(field: str, value: bytes | None) -> None:
    """A string is given as its text, anything else as its JSON as it was written."""
    document = b"""{"text":"a b","quoted":"say \\"hi\\"\\n","unicode":"gr\\u00fcn \\ud83d\\udd12",
    "number": 5.10 ,"large":123456789012345678901234567890,"true":true,"null":null,"empty":"",
    "object": {"b": {"c":"deep"}},"list": ["one", "two"],"a/b":"slash","":"empty key"}"""
    if value is None:
        with pytest.raises(SecretNotFound):
            value_of(document, f"a://b#{field}")
    else:
        assert value_of(document, f"a://b#{field}") == value


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("missing", SecretNotFound),
        ("/object/missing", SecretNotFound),
        ("/list/2", SecretNotFound),
        ("/list/-", SecretNotFound),
        ("/list/01", SecretNotFound),
        ("/list/99999999999999999999", SecretNotFound),
        ("/list/x", SecretNotFound),
        ("null", SecretNotFound),
        ("/text/x", MalformedInput),
        ("/number/0", MalformedInput),
        ("/null/0", MalformedInput),
    ],
)
def test_field_that_is_not_there(field: str, error: type[KMSError]) -> None:
    """A missing field is not found; a pointer into what has none malformed; nothing shows."""
    document = (
        b'{"text":"planted-s3cr3t-value","number":1,"null":null,"object":{"a":1},'
        b'"list":["planted-s3cr3t-value",2]}'
    )
    with pytest.raises(error) as caught:
        value_of(document, f"a://b#{field}")
    assert type(caught.value) is error
    assert not shows(told_by(caught.value), PLANTED)


@pytest.mark.parametrize(
    "document",
    [
        PLANTED,
        b"",
        b"{",
        b'{"a":"planted-s3cr3t-value"',
        b"\xff\xfe",
        b'"text"',
        b"[" * 100_000,
        b'{"a":"\\ud800"}',
    ],
    ids=lambda d: ascii(d[:8]),
)
def test_document_without_fields(document: bytes) -> None:
    """A field of what is no JSON, no object or not UTF-8 is malformed."""
    with pytest.raises(MalformedInput) as caught:
        value_of(document, "a://b#a")
    assert not shows(told_by(caught.value), PLANTED)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"x\n", b"x"),
        (b"x\r\n", b"x"),
        (b"x\n\n", b"x\n"),
        (b"x", b"x"),
        (b"\n", b""),
        (b"a\nb\n", b"a\nb"),
        ("gr\u00fcn\n".encode(), "gr\u00fcn".encode()),
        (b"\xff\n", b"\xff\n"),
        (b"a\x00\n", b"a\x00\n"),
        (b"x\r", b"x\r"),
    ],
)
def test_one_newline_is_dropped_from_text(value: bytes, kept: bytes) -> None:
    """One newline at the end of text goes, and no byte of what is no text."""
    assert drop_newline(KeyMaterial(value)).reveal() == kept


@pytest.mark.parametrize(
    ("transforms", "value", "made"),
    [
        (("base64",), b"aGk=", b"hi"),
        (("base64",), b"aGk", b"hi"),
        (("base64",), b"__-_", b"\xff\xff\xbf"),
        (("base64",), b"//+/", b"\xff\xff\xbf"),
        (("base64",), b"aG\n k=\n", b"hi"),
        (("json",), b'"a\\nb"', b"a\nb"),
        (("json",), b' {"a": 1} ', b'{"a": 1}'),
        (("json",), b"7", b"7"),
        (("base64", "json"), base64.b64encode(b'"x"'), b"x"),
        ((), b"as it is", b"as it is"),
    ],
)
def test_transforms(transforms: tuple[str, ...], value: bytes, made: bytes) -> None:
    """base64 decodes either alphabet, json unquotes a string and checks anything else."""
    assert apply(transforms, KeyMaterial(value), "A").reveal() == made


@pytest.mark.parametrize(
    ("transform", "value"),
    [
        ("base64", PLANTED + b"!"),
        ("base64", b"a"),
        ("base64", b"aGk=="),
        ("base64", b"=aGk"),
        ("json", PLANTED),
        ("json", b'"planted-s3cr3t-value'),
        ("json", b'"\\ud800"'),
        ("json", b"\xff"),
        ("json", b"[" * 100_000),
    ],
    ids=lambda v: ascii(v[:12]),
)
def test_bad_transform(transform: str, value: bytes) -> None:
    """What is not of the declared form is malformed, named by its secret, and not shown."""
    with pytest.raises(MalformedInput, match="A: its transform") as caught:
        apply((transform,), KeyMaterial(value), "A")
    assert not shows(told_by(caught.value), PLANTED)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_quoted_parts_come_back(user: bytes, password: bytes) -> None:
    """Whatever bytes a part has, a URL made of it has the same parts as its template."""
    template = parse_template("postgresql://{u}:{p}@db.internal:5432/app?x=1#f", ["u", "p"])
    made = render(template, {"u": KeyMaterial(user), "p": KeyMaterial(password)}).reveal()
    url = urlsplit(made.decode("ascii"))
    assert (url.hostname, url.port, url.path) == ("db.internal", 5432, "/app")
    assert unquote_to_bytes(url.username or "") == user
    assert unquote_to_bytes(url.password or "") == password


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_odd_values(odd: bytes, clock: ManualClock) -> None:
    """A value with percent, at, slash, newline or NUL comes as it is, and quoted in a URL."""
    source = Source(odd=odd, doc=json.dumps({"f": odd.decode()}).encode())
    manager = make_manager(
        source,
        clock,
        PLAIN="fake://odd",
        FIELD="fake://doc#f",
        URL={"template": "x://{a}@h", "a": "fake://odd"},
        RAW={"template": "[{a:raw}]", "a": "fake://odd"},
    )
    found = manager.get_many(manager.names())
    assert found["PLAIN"].reveal_bytes() == odd
    assert found["FIELD"].reveal() == odd.decode()
    assert found["URL"].reveal() == f"x://{quote(odd, safe='')}@h"
    assert found["RAW"].reveal_bytes() == b"[" + odd + b"]"


def test_not_utf8(clock: ManualClock) -> None:
    """Bytes that are no text are given as bytes, and refused as text."""
    manager = make_manager(Source(a=b"\xff\xfe"), clock, A="fake://a")
    assert manager.get("A").reveal_bytes() == b"\xff\xfe"
    with pytest.raises(MalformedInput, match="reveal_bytes"):
        manager.get("A").reveal()


@pytest.mark.parametrize("empty", [b"", b'{"f":""}'])
def test_empty_value_is_refused(empty: bytes, clock: ManualClock) -> None:
    """An empty value is no secret; it is refused by name, and no fallback hides it."""
    reference = "fake://a" if not empty else "fake://a#f"
    manager = make_manager(Source(a=empty, b=b"other"), clock, A={"from": [reference, "fake://b"]})
    with pytest.raises(MalformedInput, match=f"A: {reference} is empty"):
        manager.get("A")


def test_huge_value_is_refused(clock: ManualClock) -> None:
    """More than 1 MiB is no secret, whatever backend it comes from."""
    manager = make_manager(Source(a=bytes(2**20 + 1), b=bytes(2**20)), clock)
    with pytest.raises(MalformedInput, match="more than 1048576 bytes"):
        manager.get("fake://a")
    assert len(manager.get("fake://b").reveal_bytes()) == 2**20


def test_version_and_expiry(clock: ManualClock) -> None:
    """A value has its source's version and expiry; a composed one those of its parts."""
    soon, later = (datetime.fromtimestamp(clock() + s, UTC) for s in (60, 90))
    source = Source(
        a=SecretValue(KeyMaterial(b"x"), version="7", expires=later),
        b=SecretValue(KeyMaterial(b"y"), version="v2", expires=soon),
        c=b"z",
    )
    template = {"template": "{a}{b}{c}", "a": "fake://a", "b": "fake://b", "c": "fake://c"}
    manager = make_manager(source, clock, A="fake://a", ALL=template, C="fake://c")
    assert (manager.get("A").version, manager.get("A").expires) == ("7", later)
    assert (manager.get("ALL").version, manager.get("ALL").expires) == ("a=7,b=v2", soon)
    assert (manager.get("C").version, manager.get("C").expires) == (None, None)


@pytest.mark.parametrize("name", ["expires", "created"])
def test_naive_time_is_a_fault_of_the_backend(name: str, clock: ManualClock) -> None:
    """A backend that answers with a time of no zone is told so."""
    wrong: Any = {name: datetime(2026, 1, 1)}  # noqa: DTZ001 - what is refused
    source = Source(a=SecretValue(KeyMaterial(b"x"), **wrong))
    with pytest.raises(PluginError, match=f"{name} (has no time zone|is [a-z]+)"):
        make_manager(source, clock).get("fake://a")


def test_fallback_on_not_found(clock: ManualClock) -> None:
    """The next reference is asked if one is not there, or has no such field."""
    source = Source(b=b'{"x":"1"}', c=b"third")
    manager = make_manager(source, clock, A={"from": ["fake://a", "fake://b#y", "fake://c"]})
    assert manager.get("A").reveal() == "third"
    assert source.asked == ["fake://a", "fake://b", "fake://c"]


def test_fallback_with_nothing_left(clock: ManualClock) -> None:
    """If none is found, the error is *not found* and tells of each."""
    manager = make_manager(Source(), clock, A={"from": ["fake://a", "fake://b"]})
    with pytest.raises(SecretNotFound, match="none of its 2 references is found") as caught:
        manager.get("A")
    assert "fake://a" in caught.value.message
    assert "fake://b" in caught.value.message


@pytest.mark.parametrize(
    "failure",
    [
        AccessDenied("no"),
        AuthenticationFailed("who?"),
        ServiceUnavailable("down"),
        MalformedInput("odd"),
        ConfigurationError("both"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_nothing_else_falls_through(failure: KMSError, clock: ManualClock) -> None:
    """Denied, unavailable and malformed stop a chain with their own type."""
    source = Source(a=failure, b=b"must not be used")
    manager = make_manager(source, clock, A={"from": ["fake://a", "fake://b"]})
    with pytest.raises(type(failure)):
        manager.get("A")
    assert source.asked == ["fake://a"]


def test_malformed_document_stops_a_chain(clock: ManualClock) -> None:
    """A document that is no JSON is not *a missing field*."""
    source = Source(a=PLANTED, b=b"must not be used")
    manager = make_manager(source, clock, A={"from": ["fake://a#x", "fake://b"]})
    with pytest.raises(MalformedInput) as caught:
        manager.get("A")
    assert not shows(told_by(caught.value), PLANTED)


def test_unknown_name(clock: ManualClock) -> None:
    """A name that is not declared is not found, with the nearest that is."""
    manager = make_manager(Source(), clock, DATABASE_URL="fake://a")
    with pytest.raises(SecretNotFound, match=r"\[test.secrets\].*did you mean 'DATABASE_URL'"):
        manager.get("DATABASE_URI")
    with pytest.raises(MalformedInput, match="text, not int"):
        manager.get(7)  # type: ignore[arg-type]


def test_newline_of_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and variables lose one newline, unless the reference says otherwise."""
    path = tmp_path / "one"
    path.touch(0o600)
    path.write_bytes(b"value\n")
    monkeypatch.setenv("ONE", "value\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    table = {
        "development": True,
        "backends": {
            "docker": {"type": "docker", "directory": str(tmp_path)},
            "inside": {"type": "file", "directory": str(tmp_path)},
        },
    }
    with sentra_kms.load({"test": table}, "test") as kms:
        for place in (
            f"file://{path}",
            "env://ONE",
            "docker://one",
            "systemd://one",
            "inside://one",
        ):
            assert kms.secrets.get(place).reveal() == "value"
            assert kms.secrets.get(f"{place}?newline=keep").reveal() == "value\n"


def test_newline_of_services_is_theirs(clock: ManualClock) -> None:
    """What a service holds is given to the byte."""
    assert make_manager(Source(a=b"x\n"), clock).get("fake://a").reveal() == "x\n"


def test_values_do_not_show_themselves(clock: ManualClock) -> None:
    """Neither manager nor secret nor mapping shows a value."""
    manager = make_manager(Source(a=PLANTED), clock, A="fake://a")
    secret = manager.get("A")
    assert isinstance(secret, Secret)
    told = f"{manager!r} {secret!r} {secret} {manager.environ()!r} {manager.get_many(['A'])}"
    assert not shows(told, PLANTED)


def test_environ(clock: ManualClock) -> None:
    """The mapping has the declared names; an undeclared one may have a default."""
    source = Source(a=b"value", b=ServiceUnavailable("down"))
    environ = make_manager(source, clock, A="fake://a", B="fake://b").environ()
    assert (environ["A"], "A" in environ, "X" in environ, len(environ)) == ("value", True, False, 2)
    assert list(environ) == ["A", "B"]
    assert environ.get("X", "default") == "default"
    with pytest.raises(KeyError, match="fake"):
        environ["fake://a"]
    with pytest.raises(ServiceUnavailable):
        environ.get("B", "default")


def test_docker_names_of_the_platform(tmp_path: Path) -> None:
    """The platform's Docker secrets serve the names that its code uses."""
    for name, value in {
        "encryption_master_key": base64.b64encode(bytes(range(32))) + b"\n",
        "session_secret": b"s" * 40 + b"\n",
        "database_url": b"postgresql://app:p%40ss@db/app\n",
    }.items():
        (tmp_path / name).write_bytes(value)
        (tmp_path / name).chmod(0o444)
    table = {
        "backends": {
            "docker": {"type": "docker", "directory": str(tmp_path)},
            "local": {
                "type": "local",
                "directory": str(tmp_path / "keys"),
                "master_keys": {"2026-11": "docker://encryption_master_key"},
            },
        },
        "keys": {"wrap_with": ["local:2026-11"], "store": "local"},
        "secrets": {
            "ENCRYPTION_MASTER_KEY": "docker://encryption_master_key",
            "SENTRASCAN_SECRET": "docker://session_secret",
            "DATABASE_URL": "docker://database_url",
        },
    }
    with sentra_kms.load({"production": table}, "production") as kms:
        assert kms.secrets.get("DATABASE_URL").reveal() == "postgresql://app:p%40ss@db/app"
        assert kms.secrets.get("SENTRASCAN_SECRET").reveal() == "s" * 40
        assert base64.b64decode(kms.secrets.get("ENCRYPTION_MASTER_KEY").reveal()) == bytes(
            range(32)
        )
        assert kms.keys.create("acme").primary == 1


def test_undeclared_backends_are_bound_when_asked(tmp_path: Path) -> None:
    """`docker://` works without being declared; `env://` outside development never does."""
    path = tmp_path / "one"
    path.touch(0o600)
    path.write_bytes(b"value")
    with sentra_kms.load({"production": {}}, "production") as kms:
        assert kms.secrets.get(f"file://{path}").reveal() == "value"
        with pytest.raises(SecretNotFound):
            kms.secrets.get("docker://sentra-kms-no-such-secret")
        with pytest.raises(ConfigurationError, match="for development only"):
            kms.secrets.get("env://PATH")
        with pytest.raises(ConfigurationError, match="no backend 'vault'"):
            kms.secrets.get("vault://x")
    for reference in (f"file://{path}", "docker://x", "systemd://x"):
        with pytest.raises(KMSError, match="closed"):
            kms.secrets.get(reference)


def test_fields_serve_master_keys_and_ring_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Master keys and `authenticate_with` go through the same references: fields and prefix."""
    keys = {"master": "m" * 40, "ring": {"key": base64.b64encode(bytes(32)).decode()}}
    monkeypatch.setenv("PLATFORM", json.dumps(keys))
    table = {
        "development": True,
        "backends": {
            "local": {
                "type": "local",
                "directory": str(tmp_path / "keys"),
                "master_keys": {"k": "ref+env://PLATFORM#master"},
            }
        },
        "keys": {
            "wrap_with": ["local:k"],
            "authenticate_with": ["env://PLATFORM#/ring/key"],
            "store": "local",
        },
    }
    with sentra_kms.load({"laptop": table}, "laptop") as kms:
        kms.keys.create("acme")
        assert kms.keys.decrypt("acme", kms.keys.encrypt("acme", b"x")) == b"x"
        assert all(f.level == "ok" for f in kms.examine() if f.subject != "local")


def test_logs_are_redacted_in_one_line(clock: ManualClock) -> None:
    """What is held is masked in what a logger's handlers write, also what is fetched later."""
    told = io.StringIO()
    logger = logging.Logger("test")  # noqa: LOG001 - not in the tree of loggers
    manager = make_manager(Source(a=PLANTED, b=b"fetched-later"), clock, A="fake://a", B="fake://b")
    with pytest.raises(ConfigurationError, match="no handlers yet"):
        manager.redact_logs(logger)
    logger.addHandler(logging.StreamHandler(told))
    manager.get("A")
    manager.redact_logs(logger)
    logger.warning("%s fetched-later", PLANTED.decode())
    manager.get("B")
    logger.warning("%s fetched-later", PLANTED.decode())
    assert told.getvalue() == "*** fetched-later\n*** ***\n"


def test_one_name_is_no_list_of_names(clock: ManualClock) -> None:
    """Text would be taken for its letters."""
    with pytest.raises(MalformedInput, match="of one name use get"):
        make_manager(Source(a=b"x"), clock, A="fake://a").get_many("A")


def test_credentials_are_fetched_at_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backend asks for through a reference is never an earlier value that is held."""
    monkeypatch.setenv("CREDENTIAL", "one")
    table = {
        "development": True,
        "backends": {"service": {"type": "memory", "secrets": {"a": "env://CREDENTIAL"}}},
        "secrets": {"SAME": "env://CREDENTIAL"},
    }
    with sentra_kms.load({"t": table}, "t") as kms:
        assert kms.secrets.get("SAME").reveal() == "one"
        assert kms.secrets.get("service://a").reveal() == "one"
        monkeypatch.setenv("CREDENTIAL", "two")
        assert kms.secrets.refresh("service://a").reveal() == "two"
        assert kms.secrets.get("SAME").reveal() == "one"  # until its time to live is over
        assert kms.secrets.get("service://a?version=1").reveal() == "one"


def test_circle_of_credentials_is_named() -> None:
    """Backends whose credentials lead to each other are refused at load, and the way is told."""
    backends = {
        "a": {"type": "memory", "secrets": {"x": "b://x#password"}},
        "b": {"type": "memory", "secrets": {"x": "ref+a://x"}},
    }
    with pytest.raises(ConfigurationError, match="circle: a -> b -> a"):
        sentra_kms.load({"t": {"development": True, "backends": backends}}, "t")


def test_parts_of_a_template_are_live_too(clock: ManualClock) -> None:
    """Each is as secret as the whole, also the one that was replaced: logs are masked of them."""
    source = Source(doc=b'{"user":"planted-user","password":"planted-1"}')
    template = {
        "template": "db://{user}:{password}@db",
        "user": "fake://doc#user",
        "password": "fake://doc#password",
    }
    made = make_manager(source, clock, URL=template)
    made.get("URL")
    source.answers["doc"] = b'{"user":"planted-user","password":"planted-2"}'
    made.refresh("URL")
    live = {secret.reveal() for secret in made.live()}
    assert {"planted-user", "planted-1", "planted-2"} <= live


def test_leased_is_told(clock: ManualClock) -> None:
    """A value that ends when its backend is closed says so, and so does what is made of one."""
    source = Source(
        plain=b"1", leased=SecretValue(KeyMaterial(b'{"user":"u"}'), version="7", leased=True)
    )
    manager = make_manager(
        source,
        clock,
        PLAIN="fake://plain",
        WHOLE="fake://leased",
        FIELD="fake://leased#user",
        CHAIN={"from": ["fake://nothing", "fake://leased"]},
        OF_BOTH={"template": "{a}{b}", "a": "fake://plain", "b": "fake://leased#user"},
        OF_NONE={"template": "{a}", "a": "fake://plain"},
    )
    told = {name: each.leased for name, each in manager.get_many(manager.names()).items()}
    assert told == {
        "PLAIN": False,
        "WHOLE": True,
        "FIELD": True,
        "CHAIN": True,
        "OF_BOTH": True,
        "OF_NONE": False,
    }
    assert manager.get("FIELD").version == "7"
