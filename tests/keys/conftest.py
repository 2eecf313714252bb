"""What the tests of tenant keys start from: a manual clock, a KMS over it, and forged rings."""

from __future__ import annotations

import base64
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import sentra_kms
from sentra_kms.backends.master_key import MasterKey
from sentra_kms.backends.ring_files import file_name
from sentra_kms.config import read_settings
from sentra_kms.errors import KMSError
from sentra_kms.keys.document import AuthKey
from sentra_kms.material import KeyMaterial
from sentra_kms.runtime import KMS

ROOT = str(Path(sentra_kms.__file__).parents[1])
WAIT = 60.0  # seconds after which a test that hangs is told so


class ManualClock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.seconds += seconds


class Later:
    """Holds the background's work until the test has it done."""

    def __init__(self) -> None:
        self.work: dict[object, Callable[[], object]] = {}

    def submit(self, name: object, work: Callable[[], object]) -> None:
        """Take work, once for a name."""
        self.work.setdefault(name, work)

    def close(self) -> None:
        """Drop it."""
        self.work.clear()

    def run(self) -> int:
        """Do what there is; return how much that was."""
        work, self.work = list(self.work.values()), {}
        for each in work:
            with suppress(KMSError):
                each()
        return len(work)


class Spy:
    """Stands before one operation of a bound backend: counts its calls, delays or fails them."""

    def __init__(self, kms: KMS, backend: str, operation: str) -> None:
        binding: Any = kms._wiring.bindings[backend]
        self._original: Callable[..., Any] = getattr(binding, operation)
        self.calls: list[tuple[Any, ...]] = []
        self.failure: KMSError | None = None
        self.before: Callable[[], object] | None = None
        self.instead: Callable[..., object] | None = None
        setattr(binding, operation, self)

    def __call__(self, *arguments: Any) -> Any:
        """Do what the operation does, or what the test wants instead."""
        self.calls.append(arguments)
        if self.before is not None:
            self.before()
        if self.failure is not None:
            raise self.failure
        return (self.instead or self._original)(*arguments)

    def hold_answers(self) -> tuple[threading.Event, threading.Event]:
        """From now on let an answer be known first, and given only once the second event is set."""
        known, go_on = threading.Event(), threading.Event()

        def slowly(*arguments: Any) -> Any:
            answer = self._original(*arguments)
            known.set()
            assert go_on.wait(WAIT)
            return answer

        self.instead = slowly
        return known, go_on

    @property
    def count(self) -> int:
        """How often the operation was asked for."""
        return len(self.calls)


class Site:
    """Rings and master keys in files. Each `open` is a KMS of its own, as in another process."""

    def __init__(self, home: Path, clock: ManualClock) -> None:
        self.home = home
        self.clock = clock
        self.later = Later()
        self.directory = home / "keys"
        self._opened: list[KMS] = []

    def secret(self, name: str) -> bytes:
        """Return the master key of this name, made now if it is new."""
        path = self.home / f"{name}.secret"
        if not path.exists():
            path.touch(0o600)
            path.write_bytes(base64.b64encode(secrets.token_bytes(32)))
        return path.read_bytes()

    def reference(self, name: str) -> str:
        """Return the reference of a master key or ring authentication key."""
        self.secret(name)
        return f"file://{self.home}/{name}.secret"

    def config(
        self,
        *wrap_with: str,
        unwrap_with: tuple[str, ...] = (),
        authenticate_with: tuple[str, ...] | None = None,
        cache: dict[str, object] | None = None,
        development: bool = True,
        **local: object,
    ) -> dict[str, Any]:
        """Return a configuration; its backends follow from the names of the KEKs in it."""
        wraps = list(wrap_with or ("local:m1",))
        backends: dict[str, Any] = {
            "local": {
                "type": "local",
                "directory": str(self.directory),
                "timeout": "60s",  # for locks, on a machine that has much else to do
                **local,
            }
        }
        sources = (source for source in authenticate_with or () if "://" not in source)
        for kek in dict.fromkeys((*wraps, *unwrap_with, *sources)):
            backend, _, key = kek.partition(":")
            unused = str(self.home / f"unused-{backend}")
            table = backends.setdefault(backend, {"type": "local", "directory": unused})
            table.setdefault("master_keys", {})[key] = self.reference(key)
        keys: dict[str, Any] = {"wrap_with": wraps, "store": "local"}
        if unwrap_with:
            keys["unwrap_with"] = list(unwrap_with)
        if authenticate_with is not None:
            keys["authenticate_with"] = list(authenticate_with)
        return {
            "test": {
                "development": development,
                "backends": backends,
                "keys": keys,
                "cache": cache or {},
            }
        }

    def open(self, *wrap_with: str, **options: Any) -> KMS:
        """Open a KMS under the site's clock; arguments are those of `config`."""
        settings = read_settings(self.config(*wrap_with, **options), "test")
        kms = KMS(settings, now=self.clock, background=self.later)
        self._opened.append(kms)
        return kms

    def close(self) -> None:
        """Close what was opened."""
        for kms in self._opened:
            kms.close()

    def path(self, tenant: str) -> Path:
        """Return the path of a tenant's ring."""
        return self.directory / f"{file_name(tenant)}.ring"

    def document(self, tenant: str = "acme") -> bytes:
        """Return a stored ring."""
        return self.path(tenant).read_bytes()

    def put(self, document: bytes, tenant: str = "acme") -> None:
        """Overwrite a stored ring, as somebody with access to the directory could."""
        self.path(tenant).write_bytes(document)

    def payload(self, tenant: str = "acme") -> dict[str, Any]:
        """Return the fields of a stored ring."""
        fields: dict[str, Any] = json.loads(self.document(tenant).partition(b"\n")[2])
        return fields

    def auth_key(self, master: str = "m1") -> AuthKey:
        """Return the ring authentication key that follows from a master key."""
        key = MasterKey(KeyMaterial(self.secret(master)))
        return AuthKey(master, key.ring_auth_key())

    def sign(self, payload: bytes, tenant: str = "acme", master: str = "m1") -> bytes:
        """Return the document of a payload, whatever it says, with a right MAC."""
        key = self.auth_key(master)
        mac = key.mac(tenant, payload).hex()
        return f"sentra-ring 1 {key.auth_id} {mac}\n".encode("ascii") + payload

    def forge(
        self, fields: dict[str, Any], tenant: str = "acme", *, master: str = "m1", up: int = 1
    ) -> None:
        """Store a ring with these fields and a right MAC, `up` above its sequence."""
        changed = {**fields, "sequence": fields["sequence"] + up}
        payload = json.dumps(changed, separators=(",", ":")).encode("utf-8")
        self.put(self.sign(payload, tenant, master), tenant)

    def set_state(self, number: int, state: str, tenant: str = "acme") -> None:
        """Give a version another state, as an operator elsewhere will be able to."""
        fields = self.payload(tenant)
        (version,) = (found for found in fields["versions"] if found["version"] == number)
        version["state"] = state
        version["destroy_after"] = "2099-01-01T00:00:00Z" if state == "scheduled" else None
        if state == "destroyed":
            version["wraps"] = []
        self.forge(fields, tenant)


@pytest.fixture
def manual_clock() -> ManualClock:
    """A monotonic clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
def key_site(tmp_path: Path, manual_clock: ManualClock) -> Iterator[Site]:
    """A directory for rings and master keys, over the real local backend."""
    site = Site(tmp_path, manual_clock)
    yield site
    site.close()


@pytest.fixture
def memory_kms(manual_clock: ManualClock) -> Iterator[KMS]:
    """A KMS in memory under the manual clock, with the tenants `acme` and `other`."""
    settings = read_settings(memory_config(), "test")
    with KMS(settings, now=manual_clock, background=Later()) as kms:
        kms.keys.create("acme")
        kms.keys.create("other")
        yield kms


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Switch threads as often as the interpreter can, to meet races."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def memory_config(**cache: object) -> dict[str, Any]:
    """Return a configuration whose KEK and rings are in memory."""
    return {
        "test": {
            "development": True,
            "backends": {"memory": {"type": "memory"}},
            "keys": {"wrap_with": ["memory:k"], "store": "memory"},
            "cache": cache,
        }
    }


def salt_of(message: bytes) -> bytes:
    """Return the salt in a message."""
    return message[20:36]


def nonce_of(message: bytes) -> bytes:
    """Return the nonce in a message."""
    return message[68:80]


def version_in(message: bytes) -> int:
    """Return the key version that a message names."""
    return int.from_bytes(message[16:20], "big")


def with_version(message: bytes, number: int) -> bytes:
    """Return the message with another version in its header."""
    return message[:16] + number.to_bytes(4, "big") + message[20:]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.001)


class Crew:
    """Threads that start together; what each returns or raises is kept in its place."""

    def __init__(self, work: Callable[[int], object], size: int) -> None:
        self._work = work
        self._start = threading.Barrier(size)
        self.outcomes: list[object] = [None] * size
        self.threads = [
            threading.Thread(target=self._run, args=(index,), daemon=True) for index in range(size)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, index: int) -> None:
        self._start.wait(WAIT)
        try:
            self.outcomes[index] = self._work(index)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.outcomes[index] = error

    def join(self) -> list[object]:
        """Wait for all; return their outcomes, exceptions among them."""
        for thread in self.threads:
            thread.join(WAIT)
            assert not thread.is_alive(), "a thread hangs"
        return self.outcomes


def in_threads(work: Callable[[int], object], size: int) -> list[object]:
    """Run `work` in threads that start together; re-raise the first exception."""
    outcomes = Crew(work, size).join()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def in_fork(work: Callable[[], bytes]) -> bytes:
    """Run `work` in a forked child and return what it returns; a child that hangs is ended."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        child = os.fork()
    if child == 0:
        _answer(work, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        if not select.select([pipe], [], [], 2 * WAIT)[0]:
            os.kill(child, signal.SIGKILL)  # it hung before it could set its own alarm
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the child ended with {status}: {answer.decode('utf-8', 'replace')}"
    return answer


def _answer(work: Callable[[], bytes], pipe: int) -> None:
    import traceback

    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(WAIT))
        os.write(pipe, work())
        status = 0
    except BaseException:  # noqa: BLE001 - told to the parent
        os.write(pipe, traceback.format_exc().encode("utf-8"))
    finally:
        os._exit(status)


class Children:
    """Processes that run one script each and start its work together.

    The script begins by printing a line and reading one; what it prints after is its answer.
    """

    def __init__(self, script: str, *arguments: object, size: int) -> None:
        command = [sys.executable, "-c", script, *(json.dumps(value) for value in arguments)]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        self.processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for _ in range(size)
        ]

    def answers(self) -> list[Any]:
        """Let all work; return the JSON that each printed. None outlives this."""
        bound = threading.Timer(WAIT * 2, self._kill)
        bound.start()
        try:
            return self._answers()
        finally:
            bound.cancel()
            self._kill()
            for process in self.processes:
                process.communicate()

    def _answers(self) -> list[Any]:
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline(), "a child ended before its work"
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = []
        for process in self.processes:
            output, errors = process.communicate()
            assert process.returncode == 0, errors
            found.append(json.loads(output))
        return found

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()
