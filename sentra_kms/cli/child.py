"""A child of `sentra-kms exec` that this process stays with, to mask what it writes or to take its
files away afterwards; signals, terminal and exit code are passed on.
"""  # noqa: D205 - one sentence

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from sentra_kms.cli.run import FILE_SUFFIX, ExecOptions, not_started, with_secrets
from sentra_kms.material import Secret

if TYPE_CHECKING:
    from sentra_kms.redaction import Masker

_CHUNK = 64 * 1024
_PASSED_ON = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
    }
)
_AWAITED = _PASSED_ON | {signal.SIGCHLD, signal.SIGWINCH}
_FROM_KERNEL = 0x80  # si_code of what the terminal sends, to the whole group and so to the child


def run_child(
    options: ExecOptions, secrets: Mapping[str, Secret], masked: Iterable[Secret] = ()
) -> int:
    """Run the command and return its exit code; end by a signal if it did.

    `masked` is to be masked besides the secrets themselves.
    """
    # From before the files and the child are there, so that nothing that comes meanwhile is lost,
    # and none of it ends this process before the files are taken away.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    with ExitStack() as stack:
        if options.files:
            environment = stack.enter_context(_private_files(secrets))
        else:
            environment = with_secrets(dict(secrets))
        masker = _masker(secrets, masked) if options.mask else None
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        streams = [_Stream(number, masker) for number in (1, 2)] if masker is not None else []
        try:
            child = _start(options, environment, streams, before)
        except OSError as error:
            return not_started(options.command[0], error)
        status = _wait(child, streams)
        for stream in streams:
            stream.join()
    return _end_like(status)


def _masker(secrets: Mapping[str, Secret], masked: Iterable[Secret]) -> Masker:
    from sentra_kms.redaction import SHORTEST, Masker

    short = [name for name, secret in secrets.items() if len(secret.reveal_bytes()) < SHORTEST]
    if short:
        sys.stderr.write(
            f"Warning: not masked, since shorter than {SHORTEST} bytes: {', '.join(short)}\n"
        )
        sys.stderr.flush()
    return Masker(secret.reveal_bytes() for secret in (*secrets.values(), *masked))


def _start(
    options: ExecOptions,
    environment: Mapping[bytes, bytes],
    streams: list[_Stream],
    mask: Iterable[int],
) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, stream.inner, stream.number) for stream in streams]
    try:
        return os.posix_spawnp(
            options.command[0],
            options.command,
            environment,
            file_actions=actions,
            setsigmask=mask,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
    finally:
        for stream in streams:
            stream.started()


def _wait(child: int, streams: list[_Stream]) -> int:
    """Pass signals on until the child has ended; return its status."""
    while True:
        number, from_kernel = _next_signal()
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
        elif number == signal.SIGWINCH:
            for stream in streams:
                stream.resize()
        elif not from_kernel:
            # What the terminal sent the child has got itself, and would get twice.
            with suppress(ProcessLookupError):
                os.kill(child, number)


def _next_signal() -> tuple[int, bool]:
    if hasattr(signal, "sigwaitinfo"):
        found = signal.sigwaitinfo(_AWAITED)
        return found.si_signo, found.si_code >= _FROM_KERNEL
    number = signal.sigwait(_AWAITED)
    return number, number in {signal.SIGINT, signal.SIGQUIT} and os.isatty(0)


def _end_like(status: int) -> int:
    """Return the exit code of an ended child, or end by the signal that it ended by."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process holds the secrets
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number


class _Stream:
    """One of the child's output streams, read by a thread and written masked to our own."""

    def __init__(self, number: int, masker: Masker) -> None:
        from sentra_kms.redaction import StreamMasker

        self.number = number
        self._masker = StreamMasker(masker)
        self._is_terminal = os.isatty(number)
        self._outer, self.inner = _terminal(number) if self._is_terminal else os.pipe()
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def started(self) -> None:
        """Begin to copy, now that the child has its end, or nobody will."""
        os.close(self.inner)
        self._thread.start()

    def resize(self) -> None:
        """Give the child's terminal the size of ours."""
        if self._is_terminal:
            with suppress(OSError):
                _copy_size(self.number, self._outer)

    def join(self) -> None:
        """Wait until all was written that the child, or who has its stream, wrote."""
        self._thread.join()

    def _copy(self) -> None:
        with suppress(OSError):  # our reader went away: closing tells the child
            while data := self._read():
                _write(self.number, self._masker.feed(data))
            _write(self.number, self._masker.end())
        os.close(self._outer)

    def _read(self) -> bytes:
        try:
            return os.read(self._outer, _CHUNK)
        except OSError:  # how Linux says that a terminal's other side was closed
            return b""


def _write(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def _terminal(number: int) -> tuple[int, int]:
    """Open a terminal for the child that changes nothing on the way, of the size of ours."""
    import termios

    outer, inner = os.openpty()
    settings = termios.tcgetattr(inner)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(inner, termios.TCSANOW, settings)
    with suppress(OSError):
        _copy_size(number, outer)
    return outer, inner


def _copy_size(source: int, target: int) -> None:
    import fcntl
    import termios

    size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(target, termios.TIOCSWINSZ, size)


@contextmanager
def _private_files(secrets: Mapping[str, Secret]) -> Generator[dict[bytes, bytes]]:
    """Write each secret to a private file; yield the environment with the files' paths.

    In memory where the system has such a directory, and taken away at the end.
    """
    # By hand: tempfile and shutil take longer to import than all else here.
    directory = os.path.join(_in_memory(), f"sentra-kms-exec-{os.urandom(8).hex()}")
    os.mkdir(directory, 0o700)
    paths: list[str] = []
    try:
        environment = dict(os.environb)
        for name, secret in secrets.items():
            path = os.path.join(directory, name)
            paths.append(path)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(secret.reveal_bytes())
            environment.pop(os.fsencode(name), None)
            environment[os.fsencode(name + FILE_SUFFIX)] = os.fsencode(path)
        yield environment
    finally:
        for path in paths:
            with suppress(OSError):
                os.unlink(path)
        with suppress(OSError):  # the command may have put something there
            os.rmdir(directory)


def _in_memory() -> str:
    """Return a directory that is no disk, else the one for temporary files."""
    for path in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):  # noqa: S108 - mkdtemp inside
        if path and os.path.isabs(path):
            with suppress(OSError):
                status = os.stat(path)
                mine = status.st_uid == os.getuid() or status.st_mode & stat.S_ISVTX
                if stat.S_ISDIR(status.st_mode) and mine and os.access(path, os.W_OK | os.X_OK):
                    return path
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - a directory of our own is made inside
