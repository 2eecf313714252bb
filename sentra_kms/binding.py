"""One configured backend bound to its hooks: fork, timing, events and the error contract."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

import msgspec
import pluggy

from sentra_kms.context import WrapContext
from sentra_kms.discovery import Create, FoundType, find_create
from sentra_kms.errors import (
    KMSError,
    PluginError,
    UnsupportedOperation,
    VendorError,
    afresh,
)
from sentra_kms.events import Event, current_actor
from sentra_kms.forks import tell_after_fork
from sentra_kms.guard import SPECIFIED, check_parts
from sentra_kms.hookspecs import PROJECT
from sentra_kms.hooktypes import (
    BackendSettings,
    Finding,
    Host,
    KeyDescription,
    RingPage,
    SecretRequest,
    SecretValue,
    StoredRing,
    WrappedKey,
)
from sentra_kms.material import KeyMaterial

TENANT_KEY_SIZE = 32
_TEXT_OR_NONE = (str, type(None))
_FIELDS: dict[type, tuple[tuple[str, tuple[type, ...]], ...]] = {
    WrappedKey: (
        ("ciphertext", (bytes,)),
        ("key_id", (str,)),
        ("key_version", _TEXT_OR_NONE),
    ),
    KeyDescription: (("key_id", (str,)), ("key_version", _TEXT_OR_NONE)),
    SecretValue: (("data", (KeyMaterial,)), ("version", _TEXT_OR_NONE)),
    StoredRing: (("document", (bytes,)), ("revision", (str,))),
    RingPage: (("tenants", (tuple,)), ("cursor", _TEXT_OR_NONE)),
}
"""What the fields of an answer must be; msgspec checks records when it decodes, not when made."""

_T = TypeVar("_T")


_NEVER_EMPTY = frozenset({"ciphertext", "key_id", "key_version", "revision", "version", "cursor"})


class Binding:
    """A backend in use. Each has a plugin manager of its own, so who answers is never in doubt.

    `timeout` is in seconds and is passed to every hook. `emit` gets an event for each operation.
    """

    def __init__(
        self,
        found: FoundType,
        settings: BackendSettings,
        host: Host,
        *,
        timeout: float,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        self.name: str = host.name
        self._type = found
        self._settings = settings
        self._host = host
        self._timeout = timeout
        self._emit = emit
        self._closed = False
        self._build()
        self.after_fork()
        self._pid = os.getpid()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """Replace a lock that another thread may have held when this child was forked."""
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        """The name of the backend's type."""
        return self._type.name

    def require(self, operation: str, why: str) -> None:
        """Raise `UnsupportedOperation` unless a part implements `operation`."""
        if operation not in self.operations:
            raise UnsupportedOperation(
                f"{why}, but backend '{self.name}' does not implement {operation} as it is "
                "configured",
                backend=self.name,
                operation=operation,
            )

    def wrap_key(self, key: str, material: KeyMaterial, context: WrapContext) -> WrappedKey:
        """Wrap a tenant key under the KEK `key` of this backend."""
        return self._ask(
            WrappedKey,
            "wrap_key",
            f"{self.name}:{key}",
            key=key,
            material=material,
            context=context,
            timeout=self._timeout,
        )

    def unwrap_key(self, key: str, wrapped: WrappedKey, context: WrapContext) -> KeyMaterial:
        """Unwrap a tenant key; an answer that is not 32 bytes is a `PluginError`."""
        return self._ask(
            KeyMaterial,
            "unwrap_key",
            f"{self.name}:{key}",
            key=key,
            wrapped=wrapped,
            context=context,
            timeout=self._timeout,
        )

    def describe_key(self, key: str) -> KeyDescription:
        """Return what a wrap made now would record."""
        subject = f"{self.name}:{key}"
        return self._ask(KeyDescription, "describe_key", subject, key=key, timeout=self._timeout)

    def ring_auth_key(self, key: str) -> KeyMaterial:
        """Return the ring authentication key of a local or memory KEK."""
        return self._ask(KeyMaterial, "ring_auth_key", f"{self.name}:{key}", key=key)

    def fetch_secret(self, request: SecretRequest) -> SecretValue:
        """Fetch a secret."""
        return self._ask(
            SecretValue,
            "fetch_secret",
            str(request.reference),
            request=request,
            timeout=self._timeout,
        )

    def load_ring(self, tenant: str) -> StoredRing:
        """Return a tenant's stored ring."""
        return self._ask(StoredRing, "load_ring", tenant, tenant=tenant, timeout=self._timeout)

    def save_ring(self, tenant: str, document: bytes, expected: str | None) -> str:
        """Store a tenant's ring by compare-and-set; return the new revision."""
        return self._ask(
            str,
            "save_ring",
            tenant,
            tenant=tenant,
            document=document,
            expected=expected,
            timeout=self._timeout,
        )

    def delete_ring(self, tenant: str, expected: str) -> None:
        """Delete a tenant's ring if its revision is still the expected one."""
        self._ask(
            type(None),
            "delete_ring",
            tenant,
            tenant=tenant,
            expected=expected,
            timeout=self._timeout,
        )

    def list_rings(self, cursor: str | None, limit: int) -> RingPage:
        """Return a page of tenants."""
        return self._ask(
            RingPage, "list_rings", "*", cursor=cursor, limit=limit, timeout=self._timeout
        )

    def check(self) -> list[Finding]:
        """Ask every part whether it would work; what one raises becomes a finding."""
        try:
            answers = cast(
                "list[object]", self._ask(list, "check", self.name, timeout=self._timeout)
            )
        except KMSError as error:
            return [Finding("error", self.name, error.message)]
        found: list[Finding] = []
        for answer in answers:
            try:
                found += msgspec.convert(answer, list[Finding], from_attributes=True)
            except msgspec.ValidationError:
                found.append(Finding("error", self.name, "a part answers check with no findings"))
        return found

    def close(self) -> None:
        """Close every part; closing again does nothing, other calls raise."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # Parts that came over a fork are the parent's: closing them could end its sessions.
        if self._pid == os.getpid():
            self._close_parts()

    def _close_parts(self) -> None:
        """Close each part, also after one that raised; then raise what the first one did."""
        first: KMSError | None = None
        begun, start = self._host.clock(), time.monotonic()
        for part in reversed(self._hooks.close.get_hookimpls()):
            try:
                part.function()
            except Exception as error:  # noqa: BLE001 - the boundary, as in _call
                first = first or self._own(error, "close")
        self._tell("close", self.name, begun, time.monotonic() - start, first)
        if first is not None:
            raise first

    def _ask(self, kind: type[_T], operation: str, subject: str, **arguments: object) -> _T:
        if self._closed:
            raise UnsupportedOperation(
                f"backend '{self.name}' is closed: load() again", backend=self.name
            )
        if self._pid != os.getpid():
            self._build_in_child()
        answer = self._call(operation, subject, arguments, kind)
        assert isinstance(answer, kind)  # noqa: S101 - _call has refused anything else
        return answer

    def _call(
        self, operation: str, subject: str, arguments: dict[str, object], kind: type | None = None
    ) -> object:
        """Call a hook; raise our own error of what it raised or wrongly answered."""
        failure: KMSError | None = None
        answer: object = None
        begun, start = self._host.clock(), time.monotonic()
        try:
            answer = getattr(self._hooks, operation)(**arguments)
        except Exception as error:  # noqa: BLE001 - the boundary: nothing foreign gets past it
            failure = self._own(error, operation)
        if failure is None and kind is not None:
            failure = self._refused(answer, kind, operation, subject)
        self._tell(operation, subject, begun, time.monotonic() - start, failure)
        if failure is not None:
            answer = None  # a refused one may hold a key, and this frame is in the traceback
            # Outside the handler: the error that a plugin raised, its frames and what they hold
            # are not reachable from the one that callers see.
            raise failure
        return answer

    def _refused(
        self, answer: object, kind: type, operation: str, subject: str
    ) -> PluginError | None:
        """Return what is wrong with an answer, `None` if nothing is."""
        if not isinstance(answer, kind):
            return PluginError(
                f"backend '{self.name}' answered {operation} with {type(answer).__name__}, not "
                f"{kind.__name__}"
            )
        if kind is str and not _is_usable(answer):
            return PluginError(
                f"backend '{self.name}' answered {operation} with text that is empty or no text"
            )
        for field, kinds in _FIELDS.get(kind, ()):
            value: object = getattr(answer, field, None)
            if type(value) not in kinds:
                return PluginError(
                    f"backend '{self.name}' answered {operation} with a {kind.__name__} whose "
                    f"{field} is {type(value).__name__}"
                )
            if value is not None and field in _NEVER_EMPTY and not _is_usable(value):
                return PluginError(
                    f"backend '{self.name}' answered {operation} with a {kind.__name__} whose "
                    f"{field} is empty, or no text: None says that there is none"
                )
        if operation == "unwrap_key" and isinstance(answer, KeyMaterial):
            size = len(answer.reveal())
            if size != TENANT_KEY_SIZE:
                return PluginError(
                    f"'{subject}' unwrapped {size} bytes where a tenant key has {TENANT_KEY_SIZE}"
                )
        return None

    def _own(self, error: Exception, operation: str) -> KMSError:
        """Make our own error of what a hook raised."""
        if isinstance(error, KMSError):
            return afresh(error)
        failure = PluginError(
            f"backend '{self.name}' let {type(error).__name__} escape from {operation}: its "
            "author must map it"
        )
        failure.__cause__ = VendorError(type(error).__name__)
        return failure

    def _tell(
        self, operation: str, subject: str, begun: float, latency: float, failure: KMSError | None
    ) -> None:
        """Say in an error where it arose, and to observers how it went."""
        if failure is not None:
            failure.backend = failure.backend or self.name
            failure.operation = failure.operation or operation
            failure.subject = failure.subject or subject
        if self._emit is None:
            return
        acting = current_actor()
        self._emit(
            Event(
                time=begun,
                operation=operation,
                backend=self.name,
                subject=subject,
                outcome="ok" if failure is None else type(failure).__name__,
                latency=latency,
                actor=acting.name if acting else None,
                request_id=acting.request_id if acting else None,
                late=latency > self._timeout,
            )
        )

    def _build(self) -> None:
        made = self._make_parts(find_create(self._type))
        parts = list(cast("list[object]", made)) if isinstance(made, list) else [made]
        self.operations: frozenset[str] = check_parts(self.name, parts)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(SPECIFIED)
        for part in parts:
            manager.register(part)
        manager.check_pending()
        self._hooks = manager.hook

    def _make_parts(self, create: Create) -> object:
        try:
            return create(self._settings, self._host)
        except Exception as error:  # noqa: BLE001 - the boundary, as in _call
            failure = self._own(error, "create")
        failure.backend = failure.backend or self.name
        raise failure

    def _build_in_child(self) -> None:
        # A connection inherited over a fork serves two masters: parts are made anew.
        with self._lock:
            if self._pid != os.getpid():
                self._build()
                self._pid = os.getpid()


def _is_usable(value: object) -> bool:
    if isinstance(value, str):
        return bool(value) and not any("\ud800" <= c <= "\udfff" for c in value)
    return bool(value)
