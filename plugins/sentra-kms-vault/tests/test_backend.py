"""The parts of one backend together."""

from __future__ import annotations

import json
import time

import pytest
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.transport import Answer as Told
from sentra_kms_vault.transport import Transport

from sentra_kms.hooktypes import SecretRequest
from sentra_kms.reference import Reference
from sentra_kms.testing import Bench
from tests.servers.scripted import Answer, Scripted, http


def test_connections_and_token_go_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever parts there are, leases are given back with the token that they were made under.

    A part that closed what all share would leave the others to log in once more.
    """
    monkeypatch.setenv("PARTS_TOKEN", "planted-token")

    def answer(head: str) -> Answer:
        if "lookup-self" in head:
            return http(200, {"data": {"ttl": 0}})
        if "creds/app" in head:
            lease = {"lease_id": "database/creds/app/1", "lease_duration": 3600, "renewable": True}
            return http(200, {**lease, "data": {"username": "u", "password": "p"}})
        return http(204)

    with Scripted(answer) as server:
        table = {
            "type": "vault",
            "address": server.url,
            "auth": {"method": "token", "token": "env://PARTS_TOKEN"},
            "mounts": {"database": "dynamic"},
            "rings": {"mount": "secret"},
        }
        bench = Bench("vault", table)
        found = bench.binding.fetch_secret(SecretRequest(Reference("vault://database/creds/app")))
        assert json.loads(found.data.reveal())["username"] == "u"
        before = len(server.requests)
        bench.close()
        last = [each.split()[1] for each in server.requests[before:]]
    assert last == ["/v1/sys/leases/revoke"]


def test_check_of_server_and_token_has_one_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asking for the server's health took is taken off the time to ask for the token."""
    monkeypatch.setenv("PARTS_TOKEN", "planted-token")
    late = 0.0
    left: list[tuple[str, float]] = []
    clock, send = time.monotonic, Transport.send

    def watched(self: Transport, method: str, path: str, **given: object) -> Told:
        nonlocal late
        deadline = given["deadline"]
        assert isinstance(deadline, Deadline)
        left.append((path, deadline.left()))
        late += 4.0 if path == "/v1/sys/health" else 0.0
        return send(self, method, path, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(time, "monotonic", lambda: clock() + late)
    monkeypatch.setattr(Transport, "send", watched)
    with Scripted(lambda _: http(200, {"data": {"ttl": 0}})) as server:
        table = {
            "type": "vault",
            "address": server.url,
            "auth": {"method": "token", "token": "env://PARTS_TOKEN"},
            "timeout": "60s",
        }
        bench = Bench("vault", table)
        bench.binding.check()
        bench.close()
    (_, before), (path, after) = left[-2:]
    assert path == "/v1/auth/token/lookup-self"
    assert after <= before - 4.0
