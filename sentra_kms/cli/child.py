"""A child of `sentra-kms exec` that this process stays with, to mask what it writes, or to take its
files away or give leased secrets back afterwards; signals, terminal and exit code are passed on.
"""  # noqa: D205 - one sentence

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from sentra_kms.cli.run import FILE_SUFFIX, ExecOptions, not_started, tell, with_secrets
from sentra_kms.cli.signals import PASSED_ON, PutOff, put_off, send_to_self
from sentra_kms.errors import KMSError
from sentra_kms.material import Secret

if TYPE_CHECKING:
    from sentra_kms.redaction import Masker

OUTPUT_LOST = 16
"""The exit code if what the command wrote could not be written, as for every file."""

_CHUNK = 64 * 1024
_POLL = 0.05  # seconds between looks for a signal while only output is waited for
_LOOK = 1.0  # seconds between looks for what another thread was told by a signal
_AWAITED = PASSED_ON | {signal.SIGCHLD, signal.SIGWINCH}
_FROM_KERNEL = 0x80  # si_code of what nobody sent: the terminal or a timer did


def run_child(
    options: ExecOptions,
    secrets: Mapping[str, Secret],
    masked: Iterable[Secret],
    give_back: Callable[[], None],
) -> int:
    """Run the command and return its exit code; end by a signal if it did.

    `masked` is to be masked besides the secrets themselves. `give_back` is called once the command
    has ended, or could not be started.
    """
    # From before the files and the child are there, so that nothing that comes meanwhile is lost,
    # and none of it ends this process before the files are taken away.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    with ExitStack() as stack:
        # And by no thread that a backend left behind, which has no such mask.
        past = stack.enter_context(put_off())
        stack.callback(_give_back, give_back)
        if options.files:
            environment = stack.enter_context(_private_files(secrets))
        else:
            environment = with_secrets(dict(secrets))
        masker = _masker(secrets, masked) if options.mask else None
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Before there are pipes, which take the numbers that are free.
        numbers = [number for number in (1, 2) if _is_open(number)]
        streams = [_Stream(number, masker) for number in numbers] if masker is not None else []
        try:
            child = _start(options, environment, streams, before)
        except OSError as error:
            return not_started(options.command[0], error)
        status = _wait(child, streams, past)
    # The files are gone by now: what the command left running may have its streams for long.
    status = _drain(streams) or status
    lost = _tell_of_lost(streams)
    return _end_like(status) or lost


def _give_back(work: Callable[[], None]) -> None:
    """Close what the secrets came from; how the command ended matters more than how that does."""
    try:
        work()
    except KMSError as error:
        tell(f"Warning: {ascii(error.message)[1:-1]}")


def _masker(secrets: Mapping[str, Secret], masked: Iterable[Secret]) -> Masker:
    from sentra_kms.redaction import SHORTEST, Masker

    short = [name for name, secret in secrets.items() if len(secret.reveal_bytes()) < SHORTEST]
    if short:
        tell(f"Warning: not masked, since shorter than {SHORTEST} bytes: {', '.join(short)}")
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


def _wait(child: int, streams: list[_Stream], past: PutOff) -> int:
    """Pass signals on until the child has ended; return its status."""
    while True:
        # Whatever came: a thread that a backend has may have taken the signal that tells of it.
        ended, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if ended and not os.WIFSTOPPED(status):
            return status
        if ended and _is_job():
            # It stopped itself alone, for the shell to go on: the shell looks at this process.
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)
        number, from_kernel = _next_signal(past)
        if number == signal.SIGCHLD:
            continue
        if number == signal.SIGWINCH:
            for stream in streams:
                stream.resize()
        if not _has_come(number, streams, from_kernel=from_kernel):
            with suppress(ProcessLookupError):
                os.kill(child, number)


def _has_come(number: int, streams: list[_Stream], *, from_kernel: bool) -> bool:
    """Whether the child has got a signal itself, and would get it twice."""
    if not from_kernel:
        return False
    match number:
        case signal.SIGINT | signal.SIGQUIT:  # the terminal sends these to the whole group
            return True
        case signal.SIGHUP:  # and this to the leader of the session alone
            return os.getsid(0) != os.getpid()
        case signal.SIGWINCH:  # when it came, the child's own terminal had its old size
            return not streams
        case _:
            return False


def _is_job() -> bool:
    """Whether a shell has this process in its foreground, and goes on when it stops."""
    if os.getsid(0) == os.getpid():
        return False
    for number in (0, 1, 2):
        with suppress(OSError):
            if os.tcgetpgrp(number) == os.getpgrp():
                return True
    return False


def _drain(streams: list[_Stream]) -> int:
    """Wait until all was written that the child wrote, and whoever else has its streams.

    Returns 0, or the number of a signal that ended the waiting.
    """
    for stream in streams:
        while not stream.join(_POLL):
            for number in signal.sigpending() & PASSED_ON:
                if signal.getsignal(number) != signal.SIG_IGN:
                    return int(number)
    return 0


def _tell_of_lost(streams: list[_Stream]) -> int:
    """Tell of output that could not be written, of which the command may know nothing.

    Returns the exit code for it, 0 if none was lost; to a reader that went away none is.
    """
    code = 0
    for stream in streams:
        if stream.failure is not None and stream.failure.errno != errno.EPIPE:
            tell(f"Error: {stream.name}: {os.strerror(stream.failure.errno or 0)}")
            code = OUTPUT_LOST
    return code


def _next_signal(past: PutOff) -> tuple[int, bool]:
    """Wait for a signal; return its number, and whether the kernel sent it.

    `past` has those that another thread took, or that are not awaited. After a while in which none
    came it is SIGCHLD.
    """
    if hasattr(signal, "sigtimedwait"):
        if past.came:
            return past.came.pop(0), False
        found = signal.sigtimedwait(_AWAITED, _LOOK)
        if found is None:
            return signal.SIGCHLD, True
        return found.si_signo, found.si_code >= _FROM_KERNEL
    number = signal.sigwait(_AWAITED)
    return number, number in {signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH} and os.isatty(0)


def _end_like(status: int) -> int:
    """Return the exit code of an ended child, or end by the signal that it ended by."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    send_to_self(number)
    return 128 + number


class _Stream:
    """One of the child's output streams, read by a thread and written masked to our own."""

    def __init__(self, number: int, masker: Masker) -> None:
        from sentra_kms.redaction import StreamMasker

        self.number = number
        self.name = f"standard {'output' if number == 1 else 'error'}"
        self.failure: OSError | None = None
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

    def join(self, seconds: float) -> bool:
        """Wait so long; return whether all was written that anybody wrote who has this stream."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _copy(self) -> None:
        try:
            while data := self._read():
                _write(self.number, self._masker.feed(data))
            _write(self.number, self._masker.end())
        except OSError as error:  # our reader went away, or its disk is full
            self.failure = error
        finally:
            os.close(self._outer)  # which tells the child

    def _read(self) -> bytes:
        try:
            return os.read(self._outer, _CHUNK)
        except OSError:  # how Linux says that a terminal's other side was closed
            return b""


def _write(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:  # whoever gave us the stream made it so
            from select import select

            select([], [number], [])


def _is_open(number: int) -> bool:
    """Whether there is such a stream: the command has none either that we were started without."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


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
        for name in secrets:
            environment.pop(os.fsencode(name), None)
        for name, secret in secrets.items():
            path = os.path.join(directory, name)
            paths.append(path)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(secret.reveal_bytes())
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
    return os.path.abspath(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - a directory of our own is made inside
