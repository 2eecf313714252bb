"""The parts of one backend together."""

from __future__ import annotations

import json

import pytest

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
