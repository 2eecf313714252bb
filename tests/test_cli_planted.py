"""A whole use of secrets, in processes of its own, leaves nothing planted behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ground.leaks import shows
from tests.test_cli_support import child_environment, command

PROGRAM = """
import asyncio, logging, sys, threading, traceback
import sentra_kms
from sentra_kms.errors import KMSError

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
kms = sentra_kms.load()
secrets = kms.secrets
kms.keys.create("acme")
box = kms.keys.encrypt("acme", secrets.get("PLAIN").reveal_bytes())
seen = threading.Event()

def callback(secret):
    seen.set()
    raise RuntimeError(secret.reveal())

secrets.watch("PLAIN", callback, interval=0.01)
print(secrets, secrets.get("PLAIN"), secrets.get_many(secrets.names()), secrets.environ())
print(asyncio.run(secrets.aio.get("URL")), repr(secrets.previous("PLAIN")), secrets.live())
for bad in ("file://{path}/plain#field", "file://{path}/document#nothing", "file://{path}/document#/a/b",
            "env://{value}", "env://{value} x", "nosuch://{value}", "WRONG", "file:///{value}"):
    try:
        secrets.get(bad.replace("{value}", "x"))
    except KMSError:
        traceback.print_exc()
        print(traceback.TracebackException.from_exception(sys.exc_info()[1], capture_locals=True))
        for line in traceback.TracebackException.from_exception(
            sys.exc_info()[1], capture_locals=True).format():
            print(line)
open("{path}/plain", "w").write("another-" + open("{path}/plain").read())
assert seen.wait(60)
secrets.redact_logs()
logging.getLogger("app").error("oops %s", secrets.get("PLAIN").reveal())
try:
    raise ValueError(secrets.refresh("URL").reveal())
except ValueError:
    logging.getLogger("app").exception("failed")
kms.close()
"""


def test_nothing_planted_is_left_behind(tmp_path: Path) -> None:
    """A whole use of secrets leaves no value in its output, its logs, or any file it made."""
    sources, work = tmp_path / "sources", tmp_path / "work"
    for path in (sources, work, work / "run", work / "tmp", work / "home"):
        path.mkdir(mode=0o700)
    planted = [os.urandom(12).hex().encode() for _ in range(3)]
    values = {"plain": planted[0], "password": planted[1]}
    document = b'{"a":"' + planted[2] + b'","b":7}'
    for name, data in {**values, "document": document, "master": os.urandom(32)}.items():
        (sources / name).touch(0o600)
        (sources / name).write_bytes(data)
    config = f"""
[production.backends.local]
type = "local"
directory = "keys"
master_keys = {{ k = "file://{sources}/master" }}
[production.keys]
wrap_with = ["local:k"]
store = "local"
[production.secrets]
PLAIN = "file://{sources}/plain"
FIELD = "file://{sources}/document#a"
URL = {{ template = "x://u:{{p}}@h", p = "file://{sources}/password" }}
"""
    (work / "sentra-kms.toml").write_text(config, encoding="utf-8")
    environment = child_environment(
        SENTRA_KMS_ENV="production", SENTRA_KMS_DEBUG="1", HOME=str(work / "home"),
        TMPDIR=str(work / "tmp"), XDG_RUNTIME_DIR=str(work / "run"),
    )  # fmt: skip
    program = PROGRAM.replace("{path}", str(sources))
    show = 'cat "$PLAIN_FILE" "$URL_FILE"; echo $PLAIN $URL; echo $FIELD >&2'
    runs = [
        [sys.executable, "-c", program],
        *(command(*words) for words in (
            ["secret", "get", "PLAIN"], ["secret", "list"], ["secret", "check"], ["doctor"],
            ["secret", "get", "WRONG"], ["secret", "get", f"file://{sources}/plain#a"],
            ["exec", "--mask", "--", "sh", "-c", show],
            ["exec", "--mask", "--files", "--", "sh", "-c", show],
            ["exec", "--files", "--", "sh", "-c", "kill -9 $$"],
            ["render", "/dev/null"],
        )),
    ]  # fmt: skip
    told = b""
    for words in runs:
        done = subprocess.run(
            words, cwd=work, capture_output=True, env=environment, check=False, timeout=120
        )
        assert b"unexpected" not in done.stderr
        told += done.stdout + done.stderr
    assert b"***" in told
    assert b"failed" in told
    for value in planted:
        assert not shows(told, value)
    files = [path for path in work.rglob("*") if path.is_file()]
    assert any(path.suffix == ".ring" for path in files)
    for path in files:
        for value in planted:
            assert not shows(path.read_bytes(), value), path
    assert list((work / "run").iterdir()) == []
    assert list((work / "tmp").iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs /dev/shm")
def test_no_private_directory_is_left() -> None:
    """No directory of a finished `exec --files` is left in memory."""
    mine = os.getuid()
    left = [
        path for path in Path("/dev/shm").glob("sentra-kms-exec-*") if path.stat().st_uid == mine
    ]
    assert left == []
