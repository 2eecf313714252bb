"""Cold start: a fresh process to its first ciphertext, from a configuration file and keys on disk.

Against tink, which reads an unwrapped keyset from a file and knows no tenants. What a bare
interpreter takes is subtracted from both. Bytecode is compiled beforehand, as installers do.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec

import sentra_kms
from benchmarks.site import ENVIRONMENT, write_config

_OURS = """
import sys
import sentra_kms
kms = sentra_kms.load(sys.argv[1], sys.argv[2])
kms.keys.encrypt("acme", b"x" * 64, b"context")
"""
_TINK = """
import sys
import tink
from tink import aead, secret_key_access
aead.register()
with open(sys.argv[1]) as file:
    keyset = tink.json_proto_keyset_format.parse(file.read(), secret_key_access.TOKEN)
keyset.primitive(aead.Aead).encrypt(b"x" * 64, b"context")
"""
_KEYSET = """
import sys
import tink
from tink import aead, secret_key_access
aead.register()
keyset = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
with open(sys.argv[1], "x") as file:
    file.write(tink.json_proto_keyset_format.serialize(keyset, secret_key_access.TOKEN))
"""
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s*(\S+)")


def run(rounds: int = 25) -> dict[str, object]:
    """Return median CPU seconds of each, their ratio, and what our imports cost by package."""
    with tempfile.TemporaryDirectory() as directory:
        config = write_config(directory)
        with sentra_kms.load(config, ENVIRONMENT) as kms:
            kms.keys.create("acme")
        environment = {
            name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
        }
        environment["PYTHONPYCACHEPREFIX"] = os.path.join(directory, "bytecode")
        commands = {"bare": ["-c", "pass"], "ours": ["-c", _OURS, config, ENVIRONMENT]}
        if find_spec("tink") is not None:
            keyset = os.path.join(directory, "keyset.json")
            _run(["-c", _KEYSET, keyset], environment)
            commands["tink"] = ["-c", _TINK, keyset]
        for command in commands.values():
            _run(command, environment)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                before = _spent()
                _run(command, environment)
                taken[name].append(_spent() - before)
        seconds = {name: statistics.median(values) for name, values in taken.items()}
        found: dict[str, object] = {"seconds": seconds}
        if "tink" in seconds:
            pairs = zip(taken["ours"], taken["tink"], taken["bare"], strict=True)
            found["ratio"] = statistics.median((o - b) / (t - b) for o, t, b in pairs)
        return found | {"imports": _imports(commands["ours"], environment)}


def _spent() -> float:
    """Return the CPU seconds of all children until now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _imports(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Milliseconds of each top-level package that the start imports, the least of several runs."""
    least: dict[str, int] = {}
    for _ in range(7):
        told = _run(["-X", "importtime", *command], environment)
        for own, _, name in _IMPORT.findall(told):
            least[name] = min(least.get(name, 10**9), int(own))
    told = _run(["-X", "importtime", "-c", "pass"], environment)
    bare = {name for _, _, name in _IMPORT.findall(told)}
    packages: dict[str, float] = {}
    for name, own in least.items():
        if name in bare:
            continue
        top = name.partition(".")[0]
        place = top if top in _NAMED else "standard library"
        packages[place] = packages.get(place, 0.0) + own / 1000
    return dict(sorted(packages.items(), key=lambda item: -item[1]))


_NAMED = ("sentra_kms", "cryptography", "_cffi_backend", "msgspec", "pluggy", "tomllib", "filelock")


def _run(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stderr
