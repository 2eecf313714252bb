"""A process that uses a backend, forks, and uses it in the child: what prefork servers do.

It has a process of its own, so that the fork happens with one thread, as such servers do it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NoReturn

from sentra_kms.binding import Binding
from sentra_kms.errors import Conflict
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.material import KeyMaterial
from sentra_kms.testing.base import PATIENCE, PLACE, together
from sentra_kms.testing.bench import Bench
from sentra_kms.testing.user import request_for

CALLS = 8
"""Calls of the backend that each process makes, at most."""


def run_forked(
    name: str, table: Mapping[str, object], kek: str | None, secret: str | None, children: int
) -> str:
    """Use a backend over forks, in a new process; return `"ok"`, or what went wrong."""
    return _run("use", name, table, kek, secret, children)


def run_race(
    name: str, table: Mapping[str, object], children: int, threads: int, saves: int
) -> str:
    """Have threads of processes add to one ring at once, so often each; `"ok"` if none was lost."""
    return _run("race", name, table, children, threads, saves)


def calls_of_race(children: int, threads: int, saves: int) -> int:
    """Return how many calls of the backend `run_race` makes at most.

    Two by the process that forks, and two for each attempt of each thread.
    """
    racers = children * threads
    return 2 + 2 * racers * _attempts(racers, saves)


def _attempts(racers: int, saves: int) -> int:
    # A conflict is somebody's save, so that half of it is enough; a store may see one too many.
    return 2 * racers * saves


def _run(what: str, *arguments: object) -> str:
    done = subprocess.run(  # noqa: S603 - this interpreter, this module
        [sys.executable, "-m", __name__, what],
        input=json.dumps(arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def _main(what: str) -> str:
    arguments = json.load(sys.stdin)
    return _race(*arguments) if what == "race" else _use(*arguments)


def _use(
    name: str, table: Mapping[str, object], kek: str | None, secret: str | None, children: int
) -> str:
    bench = Bench(name, table)
    user = _User(bench.binding, kek, secret)
    user.use("before")
    told = _in_children(children, user.use)
    if told == "ok":
        user.use("after")
    return told


def _race(name: str, table: Mapping[str, object], children: int, threads: int, saves: int) -> str:
    bench = Bench(name, table)
    bench.binding.save_ring("acme", b".", None)

    def add(mark: bytes) -> None:
        left = saves
        for _ in range(_attempts(children * threads, saves)):
            found = bench.binding.load_ring("acme")
            with suppress(Conflict):
                bench.binding.save_ring("acme", found.document + mark, found.revision)
                left -= 1
            if not left:
                return
        raise AssertionError("there are more conflicts than saves")

    def add_in_threads(name: str) -> None:
        for end in together(threads, lambda _: add(name[-1:].encode())):
            if end is not None:
                raise end

    told = _in_children(children, add_in_threads)
    kept, made = len(bench.binding.load_ring("acme").document) - 1, children * threads * saves
    if told == "ok" and kept != made:
        return f"of {made} saves by {children} processes {made - kept} were lost"
    return told


class _User:
    """Uses all that a backend implements, also what was made before the fork."""

    def __init__(self, bound: Binding, kek: str | None, secret: str | None) -> None:
        self._bound = bound
        self._kek = kek
        self._secret = secret
        self._material = KeyMaterial(os.urandom(32))
        self._wrapped: WrappedKey | None = None
        self._ring: str | None = None

    def use(self, name: str) -> None:
        """Raise an error unless everything works; `name` tells this use from the others."""
        bound = self._bound
        if self._kek is not None:
            self._wrapped = self._wrapped or bound.wrap_key(self._kek, self._material, PLACE)
            _same(bound.unwrap_key(self._kek, self._wrapped, PLACE), self._material)
            bound.wrap_key(self._kek, self._material, PLACE)
        if self._secret is not None:
            bound.fetch_secret(request_for(self._secret))
        if "save_ring" in bound.operations:
            self._ring = self._ring or bound.save_ring("acme", b"document", None)
            _same(bound.load_ring("acme").revision, self._ring)
            bound.save_ring(name, b"document", None)


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError("what was made before the fork is not what it was")


def _in_children(count: int, use: Callable[[str], None]) -> str:
    """Fork children that all wait for the last of them, and then use the backend at once."""
    starting, start = os.pipe()
    told: list[int] = []
    children: list[int] = []
    for number in range(count):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(start)
            _be_child(starting, writing, partial(use, f"child-{number}"))
        os.close(writing)
        told.append(reading)
        children.append(child)
    os.close(starting)
    os.close(start)  # which each child sees as the end of what it reads
    ends: list[str] = []
    for reading in told:
        with os.fdopen(reading) as file:
            ends.append(file.read() or "a child died")
    for child in children:
        os.waitpid(child, 0)
    return next((end for end in ends if end != "ok"), "ok")


def _be_child(starting: int, writing: int, use: Callable[[], None]) -> NoReturn:
    end = "ok"
    try:
        os.read(starting, 1)
        use()
    except BaseException as error:  # noqa: BLE001 - told to the parent
        end = f"in the child: {type(error).__name__}: {error}"
    finally:
        os.write(writing, end.encode())
        os._exit(0)


if __name__ == "__main__":
    sys.stdout.write(_main(sys.argv[1]))
