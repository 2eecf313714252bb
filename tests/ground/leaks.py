"""Whether an output shows planted bytes, in any of the forms in which they slip out."""

from __future__ import annotations

import base64
import sys
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType


def forms(secret: bytes) -> Iterator[str]:
    """Yield every text in which the bytes could stand in an output."""
    for codec in ("latin-1", "utf-8", "utf-16-le", "cp437"):
        text = secret.decode(codec, "backslashreplace")
        yield text
        yield ascii(text)[1:-1]
    yield repr(secret)[2:-1]
    yield secret.hex()
    yield secret.hex().upper()
    yield secret.hex(" ")
    yield ", ".join(str(byte) for byte in secret)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            # Without the characters that depend on what stands before and after.
            encoded = encode(b"\x00" * offset + secret).decode("ascii")
            yield encoded[4 if offset else 0 : -4]


def shows(output: str | bytes, secret: bytes) -> bool:
    """Whether the output holds the bytes, or a recognisable half of them."""
    if isinstance(output, bytes):
        if secret in output:
            return True
        output = output.decode("latin-1")
    # An output may be wrapped to a width, or cut short: half of a secret is a leak too.
    flat = "".join(output.split()).replace("'b'", "").replace("''", "")
    for form in forms(secret):
        wanted = "".join(form.split())
        half = len(wanted) // 2
        if wanted[:half] in flat or wanted[half:] in flat:
            return True
    return False


def everything(error: BaseException) -> str:
    """Return an error's whole chain as text: arguments, attributes, frames with their locals."""
    told: list[str] = []
    for each in chain(error):
        told.append(f"{each} {each!r} {each.args!r} {vars(each)!r}")
        told.extend(traceback.TracebackException.from_exception(each, capture_locals=True).format())
    return "\n".join(told)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it refers to as its cause or context."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions


def frames(error: BaseException) -> Iterator[FrameType]:
    """Yield every frame of every traceback of an error's chain."""
    for each in chain(error):
        step: TracebackType | None = each.__traceback__
        while step is not None:
            yield step.tb_frame
            step = step.tb_next


def locals_inside(error: BaseException, package: str = "sentra_kms") -> str:
    """Return, as a debugger would print them, the locals of the package's own frames."""
    told: list[str] = []
    for frame in frames(error):
        name = frame.f_globals.get("__name__", "")
        if name == package or name.startswith(package + "."):
            told += [f"{key} = {value!r}" for key, value in frame.f_locals.items()]
    return "\n".join(told)


def caught(error: type[BaseException] = BaseException) -> BaseException:
    """Return the exception that is being handled."""
    found = sys.exc_info()[1]
    assert isinstance(found, error)
    return found


def told_by(error: BaseException) -> str:
    """Return what an error's chain says, and the locals of the package's own frames."""
    said = [f"{each} {each!r} {each.args!r} {vars(each)!r}" for each in chain(error)]
    return "\n".join([*said, locals_inside(error)])
