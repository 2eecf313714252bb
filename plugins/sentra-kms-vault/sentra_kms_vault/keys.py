"""KEKs of a transit engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sentra_kms import ConfigurationError, KeyMaterial, KMSError, MalformedInput
from sentra_kms.context import WrapContext
from sentra_kms.hookspecs import BatchKeyHooks, KeyHooks, PartHooks, hookimpl
from sentra_kms.hooktypes import Finding, KeyDescription, UnwrapRequest, WrappedKey, WrapRequest
from sentra_kms_vault.call import Call
from sentra_kms_vault.transit import Engine, KeyState
from sentra_kms_vault.transit_forms import version_of
from sentra_kms_vault.vault import Vault

_R = TypeVar("_R")
_S = TypeVar("_S")
_T = TypeVar("_T")

_SEEN = 100  # keys that `check` tells of: enough to read


class Keys(KeyHooks, BatchKeyHooks, PartHooks):
    """AEAD keys of transit, with the wrap context as associated data.

    To wrap reads the key first, so that none that is unfit is used; to unwrap is one request.
    """

    def __init__(self, vault: Vault, mount: str) -> None:
        self._vault = vault
        self._mount = mount
        self._engine = Engine(vault, mount)
        self._seen: dict[str, KeyState] = {}

    @hookimpl
    def wrap_key(
        self, key: str, material: KeyMaterial, context: WrapContext, timeout: float
    ) -> WrappedKey:
        """Encrypt under the newest version."""
        return _only(self._wrap(key, (WrapRequest(material, context),), timeout))

    @hookimpl
    def unwrap_key(
        self, key: str, wrapped: WrappedKey, context: WrapContext, timeout: float
    ) -> KeyMaterial:
        """Decrypt; what `wrapped` says of its KEK is not looked at."""
        return _only(self._unwrap(key, (UnwrapRequest(wrapped, context),), timeout))

    @hookimpl
    def wrap_keys(
        self, key: str, requests: tuple[WrapRequest, ...], timeout: float
    ) -> list[WrappedKey | KMSError]:
        """Encrypt all of them in one request, after the key was read."""
        return self._wrap(key, requests, timeout)

    @hookimpl
    def unwrap_keys(
        self, key: str, requests: tuple[UnwrapRequest, ...], timeout: float
    ) -> list[KeyMaterial | KMSError]:
        """Decrypt all of them in one request."""
        return self._unwrap(key, requests, timeout)

    @hookimpl
    def describe_key(self, key: str, timeout: float) -> KeyDescription:
        """Read the key; raises what a wrap under it would raise."""
        state = self._usable(key, self._vault.call(timeout))
        return KeyDescription(self._engine.key_id(key), str(state.latest_version))

    @hookimpl
    def check(self, timeout: float) -> list[Finding]:
        """Ask what is mounted, and tell of the keys that were in use."""
        findings = [self._about_mount(self._engine.is_mounted(self._vault.call(timeout)))]
        return findings + [self._about_key(*each) for each in list(self._seen.items())]

    def _wrap(
        self, key: str, requests: Sequence[WrapRequest], timeout: float
    ) -> list[WrappedKey | KMSError]:
        def refuse(request: WrapRequest) -> KMSError | None:
            fits = len(request.material.reveal()) == 32
            return None if fits else MalformedInput("a tenant key has 32 bytes")

        def work(some: Sequence[WrapRequest]) -> list[WrappedKey | KMSError]:
            call = self._vault.call(timeout)
            self._usable(key, call)
            given = [(each.material, each.context) for each in some]
            return [self._record(key, end) for end in self._engine.encrypt(key, given, call)]

        self._engine.subject(key)
        return _answered(requests, refuse, work)

    def _unwrap(
        self, key: str, requests: Sequence[UnwrapRequest], timeout: float
    ) -> list[KeyMaterial | KMSError]:
        def refuse(request: UnwrapRequest) -> KMSError | None:
            fits = version_of(request.wrapped.ciphertext) is not None
            return None if fits else self._engine.errors.decryption_failed(key)

        def work(some: Sequence[UnwrapRequest]) -> list[KeyMaterial | KMSError]:
            given = [(each.wrapped.ciphertext, each.context) for each in some]
            return self._engine.decrypt(key, given, self._vault.call(timeout))

        self._engine.subject(key)
        return _answered(requests, refuse, work)

    def _usable(self, key: str, call: Call) -> KeyState:
        """Return the state of a key that may be a KEK; warn once of one that can leave Vault."""
        state = self._engine.read(key, call)
        before = self._seen.get(key)
        if before is not None or len(self._seen) < _SEEN:
            self._seen[key] = state
            if state.can_leave and not (before and before.can_leave):
                self._vault.host.logger.warning("%s %s", f"{self._vault.name}:{key}", _CAN_LEAVE)
        return state

    def _record(self, key: str, end: bytes | KMSError) -> WrappedKey | KMSError:
        if isinstance(end, KMSError):
            return end
        return WrappedKey(end, self._engine.key_id(key), version_of(end))

    def _about_mount(self, fits: bool | None) -> Finding:  # noqa: FBT001
        name = self._vault.name
        if fits:
            told = f"the transit engine at '{self._mount}' is there, and the token has rights in it"
            return Finding("ok", name, told)
        if fits is not None:
            wrong: ConfigurationError = self._engine.errors.no_transit()
            return Finding("error", name, wrong.message)
        return Finding(
            "warning",
            name,
            f"no KEK can be used: nothing is mounted at '{self._mount}', or the token has no right "
            "in it",
            "set `transit` to the mount of the transit engine and look at the token's policies, if "
            "this backend is to wrap keys",
        )

    def _about_key(self, key: str, state: KeyState) -> Finding:
        subject = f"{self._vault.name}:{key}"
        if state.can_leave:
            return Finding("warning", subject, _CAN_LEAVE, "make one that can not, and rewrap")
        told = (
            f"{state.type}{', derived' if state.derived else ''}, version {state.latest_version}, "
            f"unwraps from version {state.min_decryption_version} on"
        )
        return Finding("ok", subject, told)


_CAN_LEAVE = "is exportable or allows a plaintext backup: who has that right can take the KEK away"


def _only(ends: Sequence[_T | KMSError]) -> _T:
    (end,) = ends
    if isinstance(end, KMSError):
        raise end
    return end


def _answered(
    requests: Sequence[_R],
    refuse: Callable[[_R], KMSError | None],
    work: Callable[[Sequence[_R]], list[_S | KMSError]],
) -> list[_S | KMSError]:
    """Let Vault work on what is not refused here already; return every end at its place."""
    refusals = [refuse(request) for request in requests]
    good = [each for each, refusal in zip(requests, refusals, strict=True) if refusal is None]
    done = iter(work(good) if good else ())
    return [refusal if refusal is not None else next(done) for refusal in refusals]
