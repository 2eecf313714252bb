"""Masking secret values in text, in streams and in log records."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
from types import FrameType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentra_kms.material import Secret
from sentra_kms.redaction import MASK, Masker, RedactionFilter, StreamMasker

VALUE = 'p@ss/w%rd "x"\n\u00fc'
RAW = VALUE.encode()


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        quote(VALUE, safe=""),
        quote(VALUE),
        quote_plus(VALUE),
        quote(VALUE, safe="").replace("2F", "2f").replace("0A", "0a").replace("C3%BC", "c3%bc"),
        json.dumps(VALUE)[1:-1],
        json.dumps(VALUE, ensure_ascii=False)[1:-1],
        repr(VALUE)[1:-1],
        repr(RAW)[2:-1],
        RAW.hex(),
        RAW.hex().upper(),
        repr("'" + VALUE)[3:-1],
        quote(VALUE, safe=" +"),
        quote(VALUE, safe="!'()*"),
        base64.urlsafe_b64encode(RAW).decode(),
    ],
)
def test_forms(form: str) -> None:
    """A value is masked as it is and in the forms in which it slips out."""
    masked = Masker([RAW]).text(f"<{form}>")
    assert masked.startswith("<" + MASK)
    assert masked.endswith(">")
    assert len(masked) <= 12


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("db://u:p@h/d?a=b&c=<d>", r"db://u:p@h/d?a=b\u0026c=\u003cd\u003e"),  # Go
        ("db://u:p@h/d?a=b&c=d", r"db://u:p@h/d?a\u003db\u0026c\u003dd"),  # Gson
        ("db://u:p+<@h/d", r"db://u:p\u002B\u003C@h/d"),  # .NET
        ("db://u:p@h/d", r"db:\/\/u:p@h\/d"),  # PHP
        ("db://u:\u00fc@h/d", r"db:\/\/u:\u00fc@h\/d"),
        ("db://u:p<d>@h/d?a=b&c=%", "db://u:p%3Cd%3E@h/d?a=b&c=%25"),  # encodeURI
        ("it's so", r"it'\''s so"),  # bash, with set -x
        ("it's so", """it'"'"'s so"""),  # dash
        (r"it's\so", r"it\'s\\so"),  # Perl's Data::Dumper, PHP's var_export
        (r"it\so", r"it\\so"),
    ],
)
def test_forms_of_other_programs(value: str, form: str) -> None:
    """So it is in those in which programs in other languages, and shells, print it."""
    assert Masker([value.encode()]).text(f"<{form}>") == f"<{MASK}>"


@pytest.mark.parametrize("value", [b"hunter2!", b"hunter2hunter2", b"hunter2-and-3"])
@pytest.mark.parametrize("before", [b"", b"u", b"u:", b"us:", b"user:"])
@pytest.mark.parametrize("after", [b"", b"@", b"@h", b"@ho"])
def test_base64_among_other_bytes(value: bytes, before: bytes, after: bytes) -> None:
    """Of a value in the base64 of something longer, such as a login, no byte can be read."""
    text = base64.b64encode(before + value + after).decode()
    masked = Masker([value]).text(text)
    begin, _, end = masked.partition(MASK)
    assert len(begin) <= len(before) * 8 // 6 + 1
    assert len(end.rstrip("=")) <= len(after) * 8 // 6 + 2
    assert MASK in masked


def test_newline_at_the_end_is_no_part_of_a_value() -> None:
    """A value that is the text of a file is masked without the newline, which ends the line."""
    assert Masker([b"hunter2\n"]).text("a hunter2\nb hunter2") == f"a {MASK}\nb {MASK}"


def test_quoted_inside_what_has_both_quotes() -> None:
    """A value with an apostrophe is masked in the repr of a text that has both kinds of quotes."""
    for text in ("it's so", 'it\'s "so"'):
        assert "so" not in Masker([text.encode()]).text(repr(f"'\"{text}"))
        assert "so" not in Masker([text.encode()]).text(repr(f"'\"{text}".encode()))


def test_lines_of_a_value() -> None:
    """A value of several lines is masked with a margin, and its long lines each alone."""
    value = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nshort\n-----END KEY-----\n"
    masker = Masker([value])
    indented = "".join(f"    {line}" for line in value.decode().splitlines(keepends=True))
    assert masker.text(indented) == f"    {MASK}\n    {MASK}\n    short\n    {MASK}\n"


def test_other_text_is_left_alone() -> None:
    """What holds no value is the same object, whatever characters it has."""
    for text in ("", "nothing", "\ud800", "p@ss/w%r"):
        assert Masker([RAW]).text(text) is text
    assert Masker([]).text("x" * 100) == "x" * 100
    assert Masker([b""]).text("abc") == "abc"


def test_short_values_are_not_masked() -> None:
    """Fewer than 4 bytes stand in any text by chance."""
    assert Masker([b"abc"]).text("abcabc") == "abcabc"
    assert Masker([b"abcd"]).text("abcd") == MASK


def test_value_inside_another() -> None:
    """A secret that contains another is masked whole, the other also alone, overlaps whole."""
    masker = Masker([b"inner", b"the-inner-one", b"one-more"])
    assert masker.text("<the-inner-one>") == f"<{MASK}>"
    assert masker.text("<inner>") == f"<{MASK}>"
    assert masker.text("<the-inner-one-more>") == f"<{MASK}>"
    assert masker.text("<the-inner-on>") == f"<the-{MASK}-on>"


SECRETS = [b"hunter2!", b"ab", b"abab", b"aaaa", b"unter2", b"two\nlines"]


@given(
    st.lists(st.sampled_from([*SECRETS, b"x", b"a", b"b", b"hunt", b"\n", b"er2!"]), max_size=12),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_stream_is_masked_however_it_is_split(pieces: list[bytes], cuts: list[int]) -> None:
    """A stream in any pieces is masked as the whole is, and nothing of a value comes through."""
    whole = b"".join(pieces)
    masker = Masker(SECRETS)
    expected = masker.masked(whole)
    stream = StreamMasker(masker)
    told = b""
    begin = 0
    for cut in sorted(cut for cut in cuts if cut <= len(whole)):
        told += stream.feed(whole[begin:cut])
        begin = cut
    told += stream.feed(whole[begin:]) + stream.end()
    assert told == expected
    assert not any(secret in told for secret in SECRETS if len(secret) >= 4)


@pytest.mark.parametrize("secret", [b"hunter2!", b"aaaa", b"abcabcab"])
def test_stream_split_at_every_offset(secret: bytes) -> None:
    """Split at every offset, byte by byte, and twice in a row."""
    masker = Masker([secret])
    text = b"<" + secret + b"><" + secret + secret + b">"
    for size in range(1, len(text) + 1):
        stream = StreamMasker(masker)
        told = b"".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size))
        assert told + stream.end() == masker.masked(text)
        assert masker.masked(text) in {b"<***><******>", b"<***><***>"}


def test_stream_that_pauses_inside_an_overlap() -> None:
    """What a mask has been told for is not shown after a pause and the end."""
    for pieces in ([b"ababababab", b""], [b"ababababab", b"", b""], [b"abab", b"", b"ab"]):
        stream = StreamMasker(Masker([b"abab"]))
        assert b"".join(map(stream.feed, pieces)) + stream.end() == b"***"


def test_stream_holds_back_only_what_may_begin_a_value() -> None:
    """A prompt without a newline comes at once."""
    stream = StreamMasker(Masker([b"hunter2"]))
    assert stream.feed(b"Password: ") == b"Password: "
    assert stream.feed(b"h") == b""
    assert stream.feed(b"i") == b"hi"


def test_stream_of_one_repeated_byte_is_told() -> None:
    """A value that overlaps itself does not make a stream be kept without end."""
    stream = StreamMasker(Masker([b"aaaa"]))
    told = b"".join(stream.feed(b"a" * 1000) for _ in range(100))
    assert len(stream._kept) < 10
    assert told + stream.end() == b"***"


# --- log records -------------------------------------------------------------------------------


class Live:
    """Secrets that change."""

    def __init__(self, *values: bytes) -> None:
        self.secrets = [Secret(value) for value in values]

    def __call__(self) -> list[Secret]:
        """Return those of now."""
        return self.secrets


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO, Live]:
    """Return a logger of this test's own, what its handler writes, and the live secrets."""
    live, told = Live(RAW, b"hunter2hunter2"), io.StringIO()
    handler = logging.StreamHandler(told)
    handler.addFilter(RedactionFilter(live))
    logger = logging.Logger("test")  # noqa: LOG001 - not in the tree of loggers
    logger.addHandler(handler)
    return logger, told, live


Log = tuple[logging.Logger, io.StringIO, Live]


def test_messages_and_arguments(log: Log) -> None:
    """A value is masked in the message, in its arguments of any kind, and in pieces of both."""
    logger, told, _ = log
    logger.warning("url postgresql://u:hunter2hunter2@db")
    logger.warning("%s and %r in %s", "hunter2hunter2", VALUE, {"k": [b"hunter2hunter2"]})
    logger.warning("hunter2%s", "hunter2")
    logger.warning("%(a)s", {"a": "hunter2hunter2"})
    assert "hunter2" not in told.getvalue()
    assert "w%rd" not in told.getvalue()
    assert told.getvalue().count(MASK) == 6


def test_exceptions_and_tracebacks(log: Log) -> None:
    """A value is masked in an exception's text, its causes, and the source lines of its frames."""
    logger, told, _ = log
    try:
        try:
            int(f"bad {VALUE}")
        except ValueError as error:
            raise RuntimeError("hunter2hunter2") from error
    except RuntimeError:
        logger.exception("failed with %s", "hunter2hunter2", stack_info=True)
    shown = told.getvalue()
    assert "hunter2" not in shown.replace('RuntimeError("hunter2hunter2")', "")
    assert "w%rd" not in shown
    assert "Traceback (most recent call last)" in shown
    assert "RuntimeError: ***" in shown


def test_extras(log: Log) -> None:
    """Attributes that `extra` adds are masked, whatever they are; others stay what they are."""
    logger, _, live = log
    record = logger.makeRecord(
        "test", 30, "f", 1, "m", (), None,
        extra={"url": "x:hunter2hunter2", "raw": b"hunter2hunter2", "map": {"a": "hunter2hunter2"},
               "number": 7, "fine": ["a"]},
    )  # fmt: skip
    assert RedactionFilter(live).filter(record)
    found = vars(record)
    assert (found["url"], found["raw"], found["map"]) == ("x:***", b"***", "{'a': '***'}")
    assert (found["number"], found["fine"]) == (7, ["a"])


def test_groups_of_exceptions(log: Log) -> None:
    """A value of several lines is masked where the traceback of a group indents each."""
    logger, told, live = log
    live.secrets = [Secret(b"two\nof-lines\r\nmore")]
    try:
        inner = ExceptionGroup("one", [ValueError("is two\nof-lines\r\nmore"), ValueError("two")])
        raise ExceptionGroup("all two\nof-lines\r\nmore", [inner, KeyError("x")])  # noqa: TRY301
    except ExceptionGroup:
        logger.exception("failed")
    shown = told.getvalue()
    shown = shown.replace('"is two\\nof-lines\\r\\nmore"', "").replace('"all two\\nof-lines', "")
    assert "of-lines" not in shown
    assert "more" not in shown
    assert f"ValueError: is {MASK}" in shown


def test_extras_that_show_it_as_text_only(log: Log) -> None:
    """An object whose repr is silent may still be written by its text."""
    logger, _, live = log

    class Url:
        def __repr__(self) -> str:
            return "Url(...)"

        def __str__(self) -> str:
            return "x:hunter2hunter2"

    record = logger.makeRecord("test", 30, "f", 1, "m", (), None, extra={"url": Url()})
    assert RedactionFilter(live).filter(record)
    assert vars(record)["url"] == "x:***"


def test_objects_that_cannot_be_shown(log: Log) -> None:
    """What raises when it is shown makes no log call raise, and nothing unmasked is let through."""
    logger, told, _ = log

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("hunter2hunter2")

    logger.warning(Broken())
    logger.warning("x", extra={"broken": Broken(), "url": "hunter2hunter2"})
    logger.handle(logging.makeLogRecord({"msg": "hunter2hunter2", "exc_info": True, "levelno": 30}))
    assert told.getvalue() == "(this record could not be masked, and is not shown)\n" * 3


@pytest.mark.parametrize("line", range(8))
def test_values_that_change_in_two_threads(line: int) -> None:
    """A masker never stays beside values that it was not made of, wherever a thread is held up."""
    values = [Secret(b"battery-staple")]
    found = RedactionFilter(lambda: list(values))
    left = [line]

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        return each_line if frame.f_code.co_name == "_current" else None

    def each_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == -1:  # here another thread comes in, with what was held before
                values[:] = [Secret(b"correct-horse")]
                found.filter(logging.makeLogRecord({"msg": "x"}))
                values[:] = [Secret(b"battery-staple")]
        return each_line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        found.filter(logging.makeLogRecord({"msg": "x"}))
    finally:
        sys.settrace(before)
    record = logging.makeLogRecord({"msg": "battery-staple"})
    found.filter(record)
    assert record.msg == MASK


def test_arguments_that_do_not_fit(log: Log) -> None:
    """A record that cannot be formatted is let through without its arguments."""
    logger, told, _ = log
    logger.warning("%d apples", "hunter2hunter2")
    assert "do not fit" in told.getvalue()
    assert "hunter2" not in told.getvalue()


def test_every_later_handler_gets_it_masked(log: Log) -> None:
    """A record is masked in place: its message, arguments and exception for whoever comes after."""
    logger, _, live = log
    try:
        record = None
        int("hunter2hunter2")
    except ValueError:
        record = logger.makeRecord("t", 30, "f", 1, "x %s", ("hunter2hunter2",), traceback_of_now())
    assert record is not None
    RedactionFilter(live).filter(record)
    assert (record.getMessage(), record.args, record.exc_info) == ("x ***", None, None)
    assert "ValueError: invalid literal for int() with base 10: '***'" in (record.exc_text or "")
    assert RedactionFilter(live).filter(record)
    assert record.getMessage() == "x ***"


def traceback_of_now() -> Any:
    """Return the exception that is being handled, as logging has it."""
    return sys.exc_info()


def test_new_values_are_masked_at_once(log: Log) -> None:
    """A secret that was fetched since the last record is masked in the next."""
    logger, told, live = log
    logger.warning("rotated to correct-horse")
    live.secrets = [Secret(b"correct-horse")]
    logger.warning("rotated to correct-horse")
    assert told.getvalue() == "rotated to correct-horse\nrotated to ***\n"


def test_without_secrets_a_record_is_untouched() -> None:
    """Nothing is done while nothing is held."""
    record = logging.LogRecord("t", 30, "f", 1, "x %s", ("y",), None)
    assert RedactionFilter(list).filter(record)
    assert record.args == ("y",)
