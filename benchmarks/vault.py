"""What the Vault plugin adds to an unwrap: its hook by hvac alone, at a server on this machine.

Both ask the same over a kept connection of one thread. They take turns, so that a drift of the
machine falls on both alike; the ratio is the median of those of neighbours. Time of the clock is
what a caller waits, mostly for Vault; CPU time is what this process spends.
"""

from __future__ import annotations

import base64
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from sentra_kms.context import WrapContext
from sentra_kms.material import KeyMaterial
from tests.servers.lifeline import free_port, serving, wait_until
from tests.servers.vault_binary import find_vault

_TOKEN = "made-up-root"  # noqa: S105 - of a server that lives as long as this
_PLACE = WrapContext("acme", bytes(12), 1)


def run(pairs: int = 400) -> list[dict[str, Any]] | str:
    """Return a row for time and one for CPU time, or why there is none."""
    try:
        import hvac
        import sentra_kms_vault
    except ImportError as error:
        return f"{error.name} is not installed"
    del sentra_kms_vault
    program = find_vault()
    if program is None:
        return "there is neither vault nor bao here: `make test` builds one"
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = [
        str(program), "server", "-dev", f"-dev-root-token-id={_TOKEN}",
        f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token",
    ]  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as home,
        serving(words, env={"HOME": home, "PATH": os.environ["PATH"]}) as process,
    ):
        client = hvac.Client(url=address, token=_TOKEN)
        wait_until(client.sys.read_health_status, process)
        client.sys.enable_secrets_engine("transit")
        client.secrets.transit.create_key("kek", key_type="aes256-gcm96")
        return _measured(client, address, pairs)


def _measured(client: Any, address: str, pairs: int) -> list[dict[str, Any]]:  # noqa: ANN401 - hvac has no types
    import sentra_kms
    from sentra_kms.binding import Binding

    os.environ["BENCH_VAULT_TOKEN"] = _TOKEN
    config = {
        "bench": {
            "development": True,
            "backends": {
                "vault": {
                    "type": "vault",
                    "address": address,
                    "auth": {"method": "token", "token": "env://BENCH_VAULT_TOKEN"},
                }
            },
        }
    }
    with sentra_kms.load(config, "bench") as kms:
        bound: Binding = kms._wiring.bound("vault")  # noqa: SLF001 - the hook, without a cache over it
        wrapped = bound.wrap_key("kek", KeyMaterial(os.urandom(32)), _PLACE)
        context = base64.b64encode(_PLACE.canonical).decode("ascii")

        def peer() -> bytes:
            answer = client.secrets.transit.decrypt_data(
                "kek", wrapped.ciphertext.decode("ascii"), associated_data=context
            )
            return base64.b64decode(answer["data"]["plaintext"])

        def ours() -> KeyMaterial:
            return bound.unwrap_key("kek", wrapped, _PLACE)

        assert peer() == ours().reveal()
        return [
            _row("unwrap", peer, ours, time.perf_counter, pairs),
            _row("unwrap, CPU", peer, ours, time.process_time, pairs),
        ]


def _row(
    what: str,
    peer: Callable[[], object],
    ours: Callable[[], object],
    clock: Callable[[], float],
    pairs: int,
) -> dict[str, Any]:
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            begun = clock()
            (peer, ours)[which]()
            found[which].append(clock() - begun)
    ratio = statistics.median(mine / theirs for theirs, mine in zip(*found, strict=True))
    of_peer = statistics.median(found[0])
    return {"what": what, "peer": of_peer, "ours": of_peer * ratio, "ratio": ratio}
