"""A transit engine: what is asked of it, and how its answers are understood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
from hvac.api.secrets_engines import Transit

from sentra_kms import KeyMaterial, KeyNotFound, KMSError, ServiceUnavailable
from sentra_kms.context import WrapContext
from sentra_kms_vault.call import Call
from sentra_kms_vault.documents import understood
from sentra_kms_vault.failures import Refused, ask, refused
from sentra_kms_vault.mounts import Mounted
from sentra_kms_vault.transit_errors import AEAD, NO_TYPE, TransitErrors
from sentra_kms_vault.transit_forms import decode, encode, is_key_name, version_of
from sentra_kms_vault.vault import Vault

_T = TypeVar("_T")


class KeyState(msgspec.Struct, frozen=True):
    """What Vault tells of a key that can be a KEK."""

    type: str
    latest_version: int
    min_decryption_version: int = 1
    derived: bool = False
    convergent_encryption: bool = False
    exportable: bool = False
    allow_plaintext_backup: bool = False

    @property
    def can_leave(self) -> bool:
        """Whether whoever has the right can take the key out of Vault."""
        return self.exportable or self.allow_plaintext_backup


class _Key(msgspec.Struct, frozen=True):
    data: KeyState
    mount_type: str = ""  # of Vault from 1.17 on


class _Item(msgspec.Struct, frozen=True):
    """One end of a batch; never shown, since it may hold a key."""

    plaintext: str | None = None
    ciphertext: str = ""
    error: str = ""

    def __repr__(self) -> str:
        return "_Item(redacted)"


class _Items(msgspec.Struct, frozen=True):
    batch_results: list[_Item]


class _Batch(msgspec.Struct, frozen=True):
    data: _Items


class _Operation(Protocol):
    def __call__(
        self, key: str, *, batch_input: list[dict[str, str]], mount_point: str, **options: str
    ) -> object:
        """Send a batch; one of hvac's methods."""
        ...


class Engine:
    """The transit engine at one mount.

    Every batch is one request. What one of its items ends in keeps no other from its answer.
    """

    def __init__(self, vault: Vault, mount: str) -> None:
        self._vault = vault
        self._mount = mount
        self.errors = TransitErrors(vault.name, mount)

    def key_id(self, key: str) -> str:
        """Return the key's name in Vault: namespace, mount and name, as the API's path has them."""
        namespace = self._vault.connection.namespace
        return "/".join(filter(None, (namespace, self._mount, "keys", key)))

    def subject(self, key: str) -> str:
        """Return the KEK's name, to be told in errors; raises `KeyNotFound` if it can be none."""
        if not is_key_name(key):
            raise self.errors.key_not_found(key)
        return f"'{self._vault.name}:{key}'"

    def read(self, key: str, call: Call) -> KeyState:
        """Return the state of a key that can be a KEK.

        Raises `KeyNotFound`, and `ConfigurationError` for a key that cannot be one.
        """
        subject = self.subject(key)
        self._prove(call)
        answer = ask(
            f"to read the key of the KEK {subject}",
            lambda: Transit(call).read_key(key, mount_point=self._mount),
            missing=KeyNotFound,
            special=lambda refusal: self._told(key, refusal, call),
        )
        found = self._understood(answer, _Key)
        if found.mount_type not in {"", "transit"}:  # a secret that looks like a key
            raise self.errors.no_transit()
        state = found.data
        if state.type not in AEAD:
            raise self.errors.not_bound(key, state.type)
        if state.convergent_encryption:
            raise self.errors.convergent(key)
        return state

    def encrypt(
        self, key: str, items: Sequence[tuple[KeyMaterial, WrapContext]], call: Call
    ) -> list[bytes | KMSError]:
        """Return each one's ciphertext or error, in order."""
        given = [
            {"plaintext": encode(material.reveal()), **_bound(context)}
            for material, context in items
        ]

        def ciphertext(item: _Item) -> bytes | None:
            found = item.ciphertext.encode("utf-8", "replace")
            return None if version_of(found) is None else found

        ask_for = Transit(call).encrypt_data
        return self._batch("to wrap under", key, call, ask_for, given, ciphertext, type=NO_TYPE)

    def decrypt(
        self, key: str, items: Sequence[tuple[bytes, WrapContext]], call: Call
    ) -> list[KeyMaterial | KMSError]:
        """Return each one's plaintext or error, in order; ciphertexts are canonical."""
        given = [
            {"ciphertext": ciphertext.decode("ascii"), **_bound(context)}
            for ciphertext, context in items
        ]

        def material(item: _Item) -> KeyMaterial | None:
            data = None if item.plaintext is None else decode(item.plaintext)
            return None if data is None else KeyMaterial(data)

        ask_for = Transit(call).decrypt_data
        return self._batch("to unwrap under", key, call, ask_for, given, material)

    def is_mounted(self, call: Call) -> bool | None:
        """Whether a transit engine is at the mount, `None` if the token may not know."""
        found = self._vault.mounts.at(self._mount, call, anew=True)
        return None if found is None else self._is_transit(found)

    def _prove(self, call: Call) -> None:
        """Raise `ConfigurationError` if no transit engine is there, or another one than before."""
        found = self._vault.mounts.at(self._mount, call)
        if found is None:
            return  # the token may not know; what it asks for tells the rest
        if not self._is_transit(found):
            raise self.errors.no_transit()
        if not self._vault.mounts.is_the_proved_one(self._mount, found):
            raise self.errors.mounted_anew()

    def _is_transit(self, found: Mounted) -> bool:
        return found.type == "transit" and found.place == self._mount

    def _misplaced(self, call: Call) -> KMSError | None:
        try:
            self._prove(call)
        except KMSError as error:
            return error
        return None

    def _told(self, key: str, refusal: Refused, call: Call) -> KMSError | None:
        """Return what a refusal is; that a key is not there only of the engine that had it."""
        bare = refusal.status == 404 and not refusal.texts and not refusal.body.get("warnings")
        known = self.errors.key_not_found(key) if bare else self.errors.of(key, refusal)
        return (self._misplaced(call) or known) if isinstance(known, KeyNotFound) else known

    def _batch(
        self,
        what: str,
        key: str,
        call: Call,
        operation: _Operation,
        given: list[dict[str, str]],
        understand: Callable[[_Item], _T | None],
        **options: str,
    ) -> list[_T | KMSError]:
        subject = self.subject(key)
        status = 400

        def send() -> object:
            nonlocal status
            try:
                return operation(key, batch_input=given, mount_point=self._mount, **options)
            except Refused as refusal:
                if _results(refusal.body) is None:
                    raise
                status = refusal.status  # of a batch that did not go well in each item
                return refusal.body

        answer = ask(
            f"{what} {subject}",
            send,
            missing=KeyNotFound,
            special=lambda refusal: self._told(key, refusal, call),
        )
        items = self._understood(answer, _Batch).data.batch_results
        if len(items) != len(given):
            raise self._nonsense()
        ends: list[_T | KMSError] = []
        for item in items:
            if item.error:
                refusal = Refused(status, (item.error,), {})
                known = self.errors.of(key, refusal)
                ends.append(known or refused(refusal, f"{what} {subject}", missing=KeyNotFound))
            else:
                found = understand(item)
                ends.append(self._nonsense() if found is None else found)
        return ends

    def _understood(self, answer: object, kind: type[_T]) -> _T:
        if answer == {}:  # 204: some engines take whatever is written to any path
            raise self.errors.no_transit()
        found = understood(answer, kind)
        if found is None:
            raise self._nonsense()
        return found

    def _nonsense(self) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"what answered for '{self._mount}' is no transit engine, or its answer was changed on "
            "its way: look at the address, at `transit`, and at proxies"
        )


def _results(body: dict[str, object]) -> list[_Item] | None:
    found = understood(body, _Batch)
    return None if found is None else found.data.batch_results


def _bound(context: WrapContext) -> dict[str, str]:
    """Return what binds a wrap to its place: to derived keys as their context, too.

    Vault takes no notice of a context where a key is not derived. So nobody has to know.
    """
    canonical = encode(context.canonical)
    return {"associated_data": canonical, "context": canonical}
