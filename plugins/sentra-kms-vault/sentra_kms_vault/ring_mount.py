"""Whether what is mounted where rings are to be kept is an engine KV version 2."""

from __future__ import annotations

from sentra_kms import AccessDenied, ConfigurationError
from sentra_kms_vault.call import Call
from sentra_kms_vault.mounts import Mounted, Mounts


class RingMount:
    """The mount of rings; what it is is asked when it matters.

    It matters before a write, since KV version 1 would take it and keep it without versions and
    without check-and-set; and before a path is said to have nothing, which a wrong mount, KV
    version 1 and an engine that was mounted anew answer in the same words.
    """

    def __init__(self, backend: str, mount: str, mounts: Mounts) -> None:
        self.mount = mount
        self._backend = backend
        self._mounts = mounts

    def prove(self, call: Call, *, anew: bool = False) -> None:
        """Return if it is KV version 2, and the same as before.

        Raises `ConfigurationError` or `AccessDenied` if not. Vault tells this to every token with a
        right below the mount; to others it tells nothing, also if there is no mount. With `anew` it
        is asked, whenever it was asked last.
        """
        found = self._mounts.at(self.mount, call, anew=anew)
        if found is None:
            raise AccessDenied(
                f"backend '{self._backend}': Vault shows this token no engine at '{self.mount}': "
                "look whether `rings.mount` is right, and give the token's policies the rights "
                "that the plugin's page lists"
            )
        self._judge(found)

    def refuse(self, why: str) -> ConfigurationError:
        """Return the error of a mount that cannot keep rings."""
        return ConfigurationError(
            f"backend '{self._backend}': `rings.mount` is '{self.mount}', and {why}: key rings "
            "need an engine KV version 2",
            backend=self._backend,
        )

    def _judge(self, found: Mounted) -> None:
        if found.place != self.mount:
            raise self.refuse(
                f"the engine is mounted at '{found.place}' (what follows belongs into "
                "`rings.prefix`)"
            )
        if found.kv_version is None:
            raise self.refuse("another engine is mounted there")
        if found.kv_version != 2:
            raise self.refuse("KV version 1 is mounted there (`vault kv enable-versioning`)")
        if not self._mounts.is_the_proved_one(self.mount, found):
            raise ConfigurationError(
                f"backend '{self._backend}': the engine at '{self.mount}' was mounted anew since "
                "this process began, and the rings of before are not in it: restore them and "
                "restart the process, or correct `rings.mount`",
                backend=self._backend,
            )
