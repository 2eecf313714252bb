"""What each status and each broken connection becomes, and how often a request is sent again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from hvac.exceptions import UnexpectedError, VaultError
from sentra_kms_vault.call import Call, FixedToken
from sentra_kms_vault.deadline import Deadline
from sentra_kms_vault.environment import Connection
from sentra_kms_vault.failures import STATUSES, Refused, Unanswered, ask
from sentra_kms_vault.transport import Transport

from sentra_kms import (
    AccessDenied,
    AuthenticationFailed,
    ConfigurationError,
    Conflict,
    KeyMaterial,
    KMSError,
    MalformedInput,
    NotFound,
    ServiceUnavailable,
    Throttled,
    Timeout,
    UnsupportedOperation,
)
from sentra_kms.context import WrapContext
from sentra_kms.hooktypes import WrappedKey
from sentra_kms.testing import Bench
from sentra_kms.testing.errors import check_map
from tests.servers.scripted import Answer, Scripted, http

_PLACE = WrapContext("acme", bytes(12), 1)
_WRAPPED = WrappedKey(b"vault:v1:" + b"AAAA" * 20, "k", "1")
_FINE = http(200, {"data": {"batch_results": [{"plaintext": "A" * 43 + "="}]}})
_PLANTED = "planted-5ecret-text"


class _Service:
    """A server that answers logins well, and all else as it is told."""

    def __init__(self) -> None:
        self.answer: Answer = _FINE
        self.script: list[Answer] = []
        self.server = Scripted(self._answer)

    def _answer(self, head: str) -> Answer:
        if "auth/token/lookup-self" in head:
            return http(200, {"data": {"ttl": 0}})
        return self.script.pop(0) if self.script else self.answer

    def asked(self) -> int:
        return sum("/decrypt/" in each for each in self.server.requests)


@pytest.fixture
def service() -> Iterator[_Service]:
    """Return a service that ends with the test."""
    service = _Service()
    yield service
    service.server.close()


@pytest.fixture
def bench(service: _Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Return a backend that uses the service."""
    monkeypatch.setenv("CALL_TOKEN", "planted-token")
    bench = _open(service)
    yield bench
    bench.close()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that were slept; none is."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def _open(service: _Service, **settings: object) -> Bench:
    table = {
        "type": "vault",
        "address": service.server.url,
        "auth": {"method": "token", "token": "env://CALL_TOKEN"},
    }
    return Bench("vault", {**table, **settings})


def _unwrap(bench: Bench) -> KeyMaterial:
    return bench.binding.unwrap_key("kek", _WRAPPED, _PLACE)


def _close_at_once(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_RDWR)


def _wait(client: socket.socket) -> None:
    client.recv(1)


_REPEATED = {412, 429, 472, 473, 500, 502, 503, 504}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, MalformedInput),
        (401, AuthenticationFailed),
        (403, AccessDenied),
        (404, ConfigurationError),  # of transit: the mount
        (405, UnsupportedOperation),
        (409, Conflict),
        (412, ServiceUnavailable),
        (413, MalformedInput),
        (418, AccessDenied),
        (429, Throttled),
        (472, ServiceUnavailable),
        (473, ServiceUnavailable),
        (500, ServiceUnavailable),
        (501, ServiceUnavailable),
        (502, ServiceUnavailable),
        (503, ServiceUnavailable),
        (504, ServiceUnavailable),
        (599, ServiceUnavailable),
    ],
)
def test_every_status(
    service: _Service, bench: Bench, slept: list[float], status: int, kind: type[KMSError]
) -> None:
    """Each status has its error, which shows nothing that came; some are asked four times."""
    service.answer = http(status, {"errors": [_PLANTED]})
    with pytest.raises(kind) as caught:
        _unwrap(bench)
    assert type(caught.value) is kind
    assert caught.value.retryable is kind.default_retryable
    assert service.asked() == (4 if status in _REPEATED else 1)
    assert len(slept) == service.asked() - 1
    assert sum(slept) < 1.0
    assert _PLANTED not in repr((caught.value.args, caught.value.__cause__))


@pytest.mark.parametrize("status", sorted(_REPEATED))
def test_trouble_that_goes_by(
    service: _Service, bench: Bench, slept: list[float], status: int
) -> None:
    """What goes by within the retries is never seen."""
    service.script += [http(status, {"errors": []})] * 3
    assert _unwrap(bench) == KeyMaterial(bytes(32))
    assert service.asked() == 4
    assert len(slept) == 3


def test_every_documented_status_is_mapped() -> None:
    """Every status that hvac or the API's documentation knows has an error of ours."""
    of_hvac = {
        status
        for status in range(400, 600)
        if type(VaultError.from_status(status)) is not UnexpectedError
    }
    documented = {400, 403, 404, 405, 412, 429, 472, 473, 500, 502, 503}
    of_proxies = {409, 413, 504}
    check_map(STATUSES, of_hvac | documented | of_proxies)


def test_retry_after_within_the_timeout(
    service: _Service, bench: Bench, slept: list[float]
) -> None:
    """Vault is not asked before the time that it names."""
    service.script.append(http(429, {"errors": []}, Retry_After="2"))
    _unwrap(bench)
    (seconds,) = slept
    assert 2.0 <= seconds <= 3.0


def test_retry_after_beyond_the_timeout(
    service: _Service, bench: Bench, slept: list[float]
) -> None:
    """If that time is too late the caller is told at once, and when."""
    service.answer = http(429, {"errors": []}, Retry_After="60")
    with pytest.raises(Throttled) as caught:
        _unwrap(bench)
    assert caught.value.retry_after == 60.0
    assert not slept
    assert service.asked() == 1


def test_retries_end_with_the_timeout(service: _Service, slept: list[float]) -> None:
    """No retry is begun, nor slept for, that the timeout has no room for."""
    service.answer = http(503, {"errors": []})
    transport, call = _call(service, repeatable=True, timeout=0.04)
    with pytest.raises((Refused, Unanswered)):
        call.get("/v1/x")
    assert not slept
    transport.close()


@pytest.mark.parametrize("status", sorted(_REPEATED))
def test_write_is_repeated_only_if_it_was_not_done(
    service: _Service, slept: list[float], status: int
) -> None:
    """What must not be done twice is sent again only after an answer that says it was not done."""
    service.answer = http(status, {"errors": []})
    transport, call = _call(service, repeatable=False)
    with pytest.raises(Refused):
        call.post("/v1/x", json={})
    assert len(service.server.requests) == (1 if status in {500, 502, 504} else 4)
    transport.close()


@pytest.mark.parametrize(("repeatable", "times"), [(True, 4), (False, 1)])
def test_lost_answer(
    service: _Service,
    slept: list[float],
    repeatable: bool,  # noqa: FBT001
    times: int,
) -> None:
    """A connection that breaks before the answer: a read is repeated, and a write is not."""
    service.answer = _close_at_once
    transport, call = _call(service, repeatable=repeatable)
    with pytest.raises(Unanswered) as caught:
        call.post("/v1/x", json={})
    assert caught.value.sent
    assert len(service.server.requests) == times
    transport.close()


def test_unreachable_is_tried_again(service: _Service, slept: list[float]) -> None:
    """Where nobody listens nothing was done, so that a write is tried again, too."""
    service.server.close()
    transport, call = _call(service, repeatable=False)
    with pytest.raises(Unanswered) as caught:
        call.post("/v1/x", json={})
    assert not caught.value.sent
    assert len(slept) == 3
    transport.close()


def test_kept_connection_that_went_away(service: _Service, bench: Bench) -> None:
    """A connection that the server closed meanwhile is not what a request fails of."""

    def answer_and_close(client: socket.socket) -> None:
        client.sendall(_FINE)

    service.script.append(answer_and_close)
    for _ in range(3):
        _unwrap(bench)


def test_page_of_a_proxy(service: _Service, bench: Bench, slept: list[float]) -> None:
    """A page with 200 is not Vault, at once; one with 502 is a service in trouble, at last."""
    page = b"<html>" + _PLANTED.encode() + b"</html>"
    for status, times in ((200, 1), (502, 4)):
        before = service.asked()
        service.answer = http(status, page, Content_Type="text/html")
        with pytest.raises(ServiceUnavailable) as caught:
            _unwrap(bench)
        assert service.asked() - before == times
        assert _PLANTED not in repr((caught.value.args, caught.value.__cause__))


def test_timeout_says_so(service: _Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a request and answers nothing is `Timeout`, and asked once."""
    monkeypatch.setenv("CALL_TOKEN", "planted-token")
    service.answer = _wait
    bench = _open(service, timeout="300ms")
    with pytest.raises(Timeout):
        _unwrap(bench)
    assert service.asked() == 1
    bench.close()


def test_no_exception_of_a_client_is_behind_an_error(service: _Service, bench: Bench) -> None:
    """The HTTP client's exceptions hold requests: none is the cause or context of an error."""
    service.answer = _close_at_once
    with pytest.raises(ServiceUnavailable) as caught:
        _unwrap(bench)
    assert caught.value.__context__ is None
    assert type(caught.value.__cause__).__name__ == "VendorError"
    transport, call = _call(service, repeatable=False)
    with pytest.raises(ServiceUnavailable) as caught:
        ask("to do it", lambda: call.get("/v1/x"), missing=NotFound)
    assert caught.value.__context__ is None
    transport.close()


def _call(service: _Service, *, repeatable: bool, timeout: float = 5.0) -> tuple[Transport, Call]:
    found = Connection(
        address=service.server.url, namespace=None, ca_file=None, ca_directory=None,
        client_certificate=None, client_key=None, server_name=None, verify=True, may_be_plain=False,
        proxy=None, max_connections=4,
    )  # fmt: skip
    transport = Transport(found, "vault")
    token = FixedToken("planted-token")
    return transport, Call(transport, token, None, Deadline(timeout), repeatable=repeatable)
