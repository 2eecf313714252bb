"""Whether what is mounted where rings are to be kept is an engine KV version 2."""

from __future__ import annotations

from typing import cast

from sentra_kms import AccessDenied, ConfigurationError, KMSError
from sentra_kms_vault.call import Call
from sentra_kms_vault.failures import Refused, vendor_error


class RingMount:
    """The mount of rings; what it is is asked once, when it first matters.

    It matters before the first write, since KV version 1 would take it and keep it without
    versions and without check-and-set; and before a path is said to have nothing, which a wrong
    mount and KV version 1 answer in the same words.
    """

    def __init__(self, backend: str, mount: str) -> None:
        self.mount = mount
        self._backend = backend
        self._proved = False

    def prove(self, call: Call) -> None:
        """Return if it is KV version 2; raise `ConfigurationError` or `AccessDenied` if not.

        Vault tells this to every token with a right below the mount; to others it tells nothing,
        also if there is no mount.
        """
        if self._proved:
            return
        try:
            answer = call.get(f"/v1/sys/internal/ui/mounts/{self.mount}")
        except Refused as refusal:
            if refusal.status not in {400, 403, 404}:
                raise
            failure: KMSError = AccessDenied(
                f"backend '{self._backend}': Vault shows this token no engine at '{self.mount}': "
                "look whether `rings.mount` is right, and give the token's policies the rights "
                "that the plugin's page lists"
            )
            failure.__cause__ = vendor_error(refusal)
        else:
            self._judge(answer)
            self._proved = True
            return
        raise failure

    def refuse(self, why: str) -> ConfigurationError:
        """Return the error of a mount that cannot keep rings."""
        return ConfigurationError(
            f"backend '{self._backend}': `rings.mount` is '{self.mount}', and {why}: key rings "
            "need an engine KV version 2. Nothing was written",
            backend=self._backend,
        )

    def _judge(self, answer: dict[str, object]) -> None:
        found = cast("dict[str, object]", answer.get("data") or {})
        path, kind = str(found.get("path", "")).strip("/"), found.get("type")
        options = found.get("options")
        version = options.get("version") if isinstance(options, dict) else None
        if path != self.mount:
            raise self.refuse(
                f"the engine is mounted at '{path}' (what follows belongs into `rings.prefix`)"
            )
        if kind not in {"kv", "generic"}:
            raise self.refuse("another engine is mounted there")
        if version != "2":
            raise self.refuse("KV version 1 is mounted there (`vault kv enable-versioning`)")
