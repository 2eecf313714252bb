"""What `sentra-kms exec` does, without click: it must add little to the command that it runs.

`parse` knows the usual ways to write it; anything else it leaves to click, which has the same
options and can explain them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from sentra_kms.errors import ConfigurationError, MalformedInput

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sentra_kms.events import Event
    from sentra_kms.material import Secret
    from sentra_kms.settings import Settings

NAME = "exec"
FILE_SUFFIX = "_FILE"
NOT_FOUND = 127
NOT_EXECUTABLE = 126
_VALUES = ("--config", "--env", "--only")
_FLAGS = ("--mask", "--files", "--json")


class ExecOptions(NamedTuple):
    """What one run of `exec` is to do; `only` empty means every declared secret."""

    command: tuple[str, ...]
    only: tuple[str, ...] = ()
    mask: bool = False
    files: bool = False
    config: str | None = None
    environment: str | None = None


def parse(arguments: Sequence[str]) -> ExecOptions | None:
    """Read plain arguments of `sentra-kms`; `None` if they are not of `exec`, or not plain."""
    if NAME not in arguments or "--" not in arguments:
        return None
    end = arguments.index("--")
    ours, command = list(arguments[:end]), tuple(arguments[end + 1 :])
    given: dict[str, list[str]] = {name: [] for name in _VALUES}
    flags: set[str] = set()
    words: list[str] = []
    while ours:
        word = ours.pop(0)
        name, equals, value = word.partition("=")
        if name in _VALUES and (equals or ours):
            given[name].append(value if equals else ours.pop(0))
        elif word in _FLAGS:
            flags.add(word)
        else:
            words.append(word)
    plain = all(given[name][-1:] != [""] for name in _VALUES)
    if words != [NAME] or not command or not plain:
        return None
    return ExecOptions(
        command,
        tuple(given["--only"]),
        mask="--mask" in flags,
        files="--files" in flags,
        config=given["--config"][-1] if given["--config"] else None,
        environment=given["--env"][-1] if given["--env"] else None,
    )


def main(arguments: Sequence[str]) -> int | None:
    """Run `sentra-kms exec`; `None` if its arguments are for click to understand."""
    options = parse(arguments)
    if options is None:
        return None
    failure: Exception
    try:
        return run(options)
    except Exception as error:  # noqa: BLE001 - reported as for every command
        failure = error
    from sentra_kms.cli.failure import report

    return report(failure, json="--json" in arguments[: arguments.index("--")])


def run(options: ExecOptions) -> int:
    """Run the command with its secrets; returns only where it could not become the command.

    Raises what fetching the secrets does, before anything is started.
    """
    with ExitStack() as sources:
        secrets, masked = _fetch(options, sources)
        leased = any(secret.leased for secret in secrets.values())
        if not leased:  # else they would end here, before the command begins
            sources.close()
        if options.mask or options.files or leased:
            from sentra_kms.cli.child import run_child

            return run_child(options, secrets, masked, sources.close)
    environment = with_secrets(secrets)
    # Python ignores these, and what it ignores its child would, too.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(options.command[0], options.command, environment)  # noqa: S606 - the purpose
    except OSError as error:
        return not_started(options.command[0], error)


def with_secrets(secrets: dict[str, Secret]) -> dict[bytes, bytes]:
    """Return this process's environment with the secrets in it."""
    for name, secret in secrets.items():  # before there are values in this frame
        if b"\x00" in secret.reveal_bytes():
            raise MalformedInput(
                f"{name} holds a NUL byte, which no environment variable can: use --files",
                subject=name,
            )
    environment = dict(os.environb)
    for name in secrets:
        # Both NAME and NAME_FILE would be an error of whoever reads them.
        environment.pop(os.fsencode(name + FILE_SUFFIX), None)
    for name, secret in secrets.items():
        environment[os.fsencode(name)] = secret.reveal_bytes()
    return environment


def not_started(program: str, error: OSError) -> int:
    """Say why a program does not run, and return the exit code that shells have for it."""
    reason = os.strerror(error.errno or 0)
    if error.errno == errno.E2BIG:
        reason += ", or a value too long for a variable: use --files"
    tell(f"Error: {ascii(program)[1:-1]}: {reason}")
    return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def tell(line: str) -> None:
    """Write a line to standard error, if that can be written."""
    if sys.stderr is not None:  # so is what the process was started without
        with suppress(OSError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _fetch(options: ExecOptions, stack: ExitStack) -> tuple[dict[str, Secret], list[Secret]]:
    """Return the secrets by name, and all that is as secret: what they are made of.

    What they came from is open until the stack is closed.
    """
    from sentra_kms.config import read_settings
    from sentra_kms.secrets.manager import SecretManager
    from sentra_kms.sources import Sources

    settings = read_settings(options.config, options.environment)
    unknown = [name for name in options.only if name not in settings.secrets]
    if unknown or not settings.secrets:
        _refuse(settings, unknown)
    emit, close = _observed(settings)
    stack.callback(close)
    stack.enter_context(_acting())
    sources = stack.enter_context(Sources(settings, emit))
    manager = SecretManager(
        sources.bound, settings.secrets, where=f"[{settings.environment}.secrets]"
    )
    try:
        return manager.get_many(options.only or manager.names()), manager.live()
    finally:
        manager.close()


def _refuse(settings: Settings, unknown: list[str]) -> NoReturn:
    place = f"{settings.source}: [{settings.environment}.secrets]"
    if not settings.secrets:
        raise ConfigurationError(f"{place} declares no secrets: there is nothing to run with")
    raise ConfigurationError(
        f"{place} has no {', '.join(unknown)}; there are {', '.join(sorted(settings.secrets))}"
    )


def _observed(settings: Settings) -> tuple[Callable[[Event], None] | None, Callable[[], None]]:
    """Return what takes events, and what ends it; observers are loaded only if there are any."""
    if not settings.audit.observers:
        return None, lambda: None
    from sentra_kms.observers import Observers, find_observer

    observers = Observers([(name, find_observer(name)) for name in settings.audit.observers])
    return observers.emit, observers.close


def _acting() -> AbstractContextManager[None]:
    from sentra_kms.events import actor

    return actor(f"cli:{login()}")


def login() -> str:
    """Return who runs this process."""
    # Not the variables LOGNAME and USER, which say what the user likes.
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
