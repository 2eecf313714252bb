"""Masking secret values in text and bytes: in log records, and in what a child process writes.

A value is found as it is and in the forms in which it slips out: URL-quoted, in base64, escaped as
in JSON, `repr` or a shell's trace; of several lines, also with margins before them, and its long
lines each alone.
Values of fewer than 4 bytes are not masked: they stand in any text by chance.
"""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus

from sentra_kms.material import Secret

MASK = "***"
SHORTEST = 4  # bytes
SHORTEST_LINE = 16  # bytes of a line that is masked without the others
_GROUPS = 11  # of exceptions, one in another: as deep as tracebacks show them, and one more
_UNQUOTED = ("", "/", " ", " +", "!'()*", "!'()*;,/?:@&=+$#", "$&+,;=")
"""What is left as it is when a value is put into a URL: in Python, by SQLAlchemy, in JavaScript, in
Go."""
_QUOTES = ((b"'", b"'\\''"), (b"'", b"'\"'\"'"), (b"'", b"\\'"))
"""How an apostrophe stands inside of apostrophes: by bash, by dash, in Perl and in PHP."""
_JSON_MARKS = ("", "<>&", "<>&='", "<>&'+`")
"""What JSON also writes as `\\u003c` and so on, for HTML: in Python, in Go, by Gson, in .NET."""


class Masker:
    """Replaces every occurrence of the values by a mask, those that overlap by one.

    >>> Masker([b"hunter2"]).text("password=hunter2&again=%68unter2")
    'password=***&again=%68unter2'
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        forms = {form for value in values for form in _forms(value)}
        # The longest first: where several begin, what is left to look for is soon passed over.
        self._forms = sorted(forms, key=len, reverse=True)
        self.longest: int = len(self._forms[0]) if self._forms else 0

    def text(self, text: str) -> str:
        """Mask text."""
        raw = text.encode("utf-8", "surrogatepass")
        masked = self.masked(raw)
        return text if masked == raw else masked.decode("utf-8", "replace")

    def masked(self, data: bytes) -> bytes:
        """Mask bytes."""
        return self._mask(data, len(data), 0)[0]

    def split(self, data: bytes, covered: int) -> tuple[bytes, bytes, int]:
        """Mask what can be told of a stream so far; keep the end that may begin a value.

        Returns what can be told, what is kept, and how many bytes at the latter's beginning a
        mask that was told stands for already; `covered` is that number of the call before.
        """
        return self._mask(data, self._boundary(data), covered)

    def _boundary(self, data: bytes) -> int:
        """Return where the longest end of `data` begins that begins a form and is not all of it."""
        boundary = len(data)
        for form in self._forms:
            start = max(0, len(data) - len(form) + 1)
            at = data.find(form[:1], start, boundary)
            while at >= 0:
                if form.startswith(data[at : at + 32]) and form.startswith(data[at:]):
                    boundary = at
                    break
                at = data.find(form[:1], at + 1, boundary)
        return boundary

    def _mask(self, data: bytes, end: int, covered: int) -> tuple[bytes, bytes, int]:
        spans = [(0, covered)] if covered else []
        for form in self._forms:
            at = data.find(form)
            while at >= 0:
                spans.append((at, at + len(form)))
                at = data.find(form, at + 1)
        pieces: list[bytes] = []
        done = 0
        for first, last in _merged(spans):
            if first >= end:
                break
            pieces.append(data[done:first])
            if first or not covered:
                pieces.append(MASK.encode("ascii"))
            done = last
        pieces.append(data[done:end])
        # What a mask stands for stays covered, also where all of it has to wait once more.
        return b"".join(pieces), data[end:], max(0, done - end, covered - end)


class StreamMasker:
    """Masks a stream that comes in pieces, however a value is split over them.

    >>> stream = StreamMasker(Masker([b"hunter2"]))
    >>> stream.feed(b"x=hun"), stream.feed(b"ter2."), stream.end()
    (b'x=', b'***.', b'')
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._kept = b""
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        """Take a piece, and return what can be told of all so far."""
        told, self._kept, self._covered = self._masker.split(self._kept + data, self._covered)
        return told

    def end(self) -> bytes:
        """Return what was kept back, now that nothing more comes."""
        told = self._masker.masked(self._kept[self._covered :])
        self._kept, self._covered = b"", 0
        return told


class RedactionFilter(logging.Filter):
    """Masks the live values in records: messages, arguments, exceptions, tracebacks, extras.

    `live` gives the values of the moment. Add it to handlers, since a logger's own filter does not
    see the records of the loggers below it. A record is masked in place, so every later handler
    gets it masked; its `exc_info` becomes text, as a traceback's frames cannot be masked.
    """

    def __init__(self, live: Callable[[], Iterable[Secret]]) -> None:
        super().__init__()
        self._live = live
        # One object, so that no thread finds a masker beside values that it was not made of.
        self._made: tuple[list[Secret], Masker] = ([], Masker(()))

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask a record, and let it pass; of one that cannot be masked nothing is shown."""
        masker = self._current()
        if not masker.longest:
            return True
        try:
            _mask_record(record, masker)
        except Exception:  # noqa: BLE001 - whatever foreign objects raise; a log call raises nothing
            for name in [name for name in record.__dict__ if name not in _OWN]:
                del record.__dict__[name]
            record.msg, record.args = "(this record could not be masked, and is not shown)", None
            record.exc_info = record.exc_text = record.stack_info = None
        return True

    def _current(self) -> Masker:
        values = list(self._live())
        known, masker = self._made
        if values != known:
            masker = Masker(value.reveal_bytes() for value in values)
            self._made = values, masker
        return masker


def message_of(record: logging.LogRecord) -> str:
    """Return what a record says, also if it was made wrongly: a log call raises nothing."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit, or whose __str__ raises
        return f"{record.msg} (its arguments do not fit it, and are not shown)"


def _mask_record(record: logging.LogRecord, masker: Masker) -> None:
    record.msg, record.args = masker.text(message_of(record)), None
    if record.exc_info and record.exc_info[1] is not None:
        told = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_text = record.exc_text or told
    record.exc_info = None
    if record.exc_text:
        record.exc_text = masker.text(record.exc_text)
    if record.stack_info:
        record.stack_info = masker.text(record.stack_info)
    for name, value in list(record.__dict__.items()):
        if name not in _OWN and not isinstance(value, (bool, int, float, type(None))):
            record.__dict__[name] = _extra(value, masker)


_OWN = frozenset(vars(logging.makeLogRecord({})))


def _extra(value: object, masker: Masker) -> object:
    if isinstance(value, str):
        return masker.text(value)
    if isinstance(value, bytes):
        return masker.masked(value)
    for shown in (repr(value), str(value)):
        masked = masker.text(shown)
        if masked != shown:
            return masked
    return value


def _merged(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield spans in order, those that overlap as one."""
    spans.sort()
    begin = end = -1
    for first, last in spans:
        if first >= end:
            if end >= 0:
                yield begin, end
            begin, end = first, last
        else:
            end = max(end, last)
    if end >= 0:
        yield begin, end


def _forms(value: bytes) -> Iterator[bytes]:
    """Yield a value in its forms, those of fewer than 4 bytes left out."""
    for form in _all_forms(value):
        if len(form) >= SHORTEST:
            yield form


def _all_forms(value: bytes) -> Iterator[bytes]:
    # A newline that ends a value, as of a file, also ends the line that it is told in.
    bare = value.rstrip(b"\r\n")
    if len(bare) < SHORTEST:
        return
    yield bare
    yield from _in_lines(bare)
    yield from _in_quotes(bare)
    for each in {bare, value}:
        yield from _encoded(each)


def _in_lines(value: bytes) -> Iterator[bytes]:
    """Yield a value of several lines as tracebacks of exception groups indent it, and its lines."""
    lines = value.splitlines(keepends=True)
    if len(lines) == 1:
        return
    for depth in range(1, _GROUPS + 1):
        yield (b"  " * depth + b"| ").join(lines)
    for line in lines:
        if len(line.strip()) >= SHORTEST_LINE:
            yield line.strip()


def _in_quotes(value: bytes) -> Iterator[bytes]:
    doubled = value.replace(b"\\", b"\\\\")
    yield doubled
    for mark, quoted in _QUOTES:
        yield value.replace(mark, quoted)
        yield doubled.replace(mark, quoted)


def _encoded(value: bytes) -> Iterator[bytes]:
    for quoted in (*(quote(value, safe=safe) for safe in _UNQUOTED), quote_plus(value)):
        yield quoted.encode("ascii")
        yield _lower_escapes(quoted).encode("ascii")
    yield _escaped(repr(value)[1:])
    yield _escaped(repr(b'"' + value)[2:])
    yield value.hex().encode("ascii")
    yield value.hex().upper().encode("ascii")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            # At each of the three places in a group, without what its neighbours make of it.
            begin, end = -(-offset * 8 // 6), (offset + len(value)) * 8 // 6
            yield encode(bytes(offset) + value)[begin:end]
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return
    for escaped in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        for form in _in_json(escaped[1:-1]):
            yield form.encode("utf-8", "surrogatepass")
    for show in (repr, ascii):
        yield _escaped(show(text))
        yield _escaped(show('"' + text)[1:])


def _in_json(escaped: str) -> Iterator[str]:
    yield escaped.replace("/", "\\/")  # PHP
    for marks in _JSON_MARKS:
        for style in ("04x", "04X"):
            yield escaped.translate({ord(mark): f"\\u{ord(mark):{style}}" for mark in marks})


def _escaped(shown: str) -> bytes:
    r"""Return what stands between quotes; with another kind of quote before it, `'` is `\'`."""
    return shown[1:-1].encode("utf-8", "surrogatepass")


def _lower_escapes(quoted: str) -> str:
    """Write the hex digits of percent-encoding small, as some libraries do."""
    pieces = quoted.split("%")
    return pieces[0] + "".join(f"%{piece[:2].lower()}{piece[2:]}" for piece in pieces[1:])
