"""A backend's parts: made by its plugin, held to the guard's rules, and ready to be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from sentra_kms.answers import drop_coroutine, own_error
from sentra_kms.discovery import FoundType, find_create
from sentra_kms.errors import ConfigurationError, KMSError, NotFound, PluginError, afresh
from sentra_kms.guard import check_parts, hooks_of
from sentra_kms.hookspecs import HookManager
from sentra_kms.hooktypes import BackendSettings, Host

if TYPE_CHECKING:
    from pluggy import HookRelay


class Parts(NamedTuple):
    """What the parts of one backend implement, and the way to call it."""

    operations: frozenset[str]
    hooks: HookRelay


def make_parts(found: FoundType, settings: BackendSettings, host: Host) -> Parts:
    """Make a backend's parts; raises `PluginError`, or the error of ours that its plugin raised."""
    made = _made(found, settings, host)
    try:
        return _looked_at(host.name, made)
    except KMSError as error:
        failure = afresh(error)
    except Exception as error:  # noqa: BLE001 - to look at a part may run its code
        failure = PluginError(
            f"backend '{host.name}': a part raised {type(error).__name__} when it was looked at: a "
            "part lets itself be listed, read and compared"
        )
    raise failure


def _made(found: FoundType, settings: BackendSettings, host: Host) -> object:
    create = find_create(found)
    try:
        return create(settings, host)
    except Exception as error:  # noqa: BLE001 - the boundary: nothing foreign gets past it
        failure = own_error(host.name, error, "create")
    if isinstance(failure, NotFound):
        # Nothing was asked of it yet, so this is no answer: whoever asks for a secret or a ring may
        # not take it for one and go on elsewhere.
        failure = ConfigurationError(
            f"backend '{host.name}' cannot be made, since what it needs is not there: "
            f"{failure.message}",
            backend=host.name,
            operation="create",
        )
    failure.backend = failure.backend or host.name
    raise failure


def _looked_at(backend: str, made: object) -> Parts:
    drop_coroutine(made)  # the guard refuses it
    parts = list(cast("list[object]", made)) if isinstance(made, list) else [made]
    operations = check_parts(backend, parts)
    manager = HookManager(hooks_of(operations))
    for number, part in enumerate(parts):
        manager.register(part, str(number))  # not by a name of its own, which two may share
    manager.check_pending()
    return Parts(operations, manager.hook)
