"""A source for pydantic-settings: a Settings class takes its fields from `kms.secrets`.

Needs the extra `pydantic-settings`::

    class Settings(BaseSettings):
        database_url: PostgresDsn

        @classmethod
        def settings_customise_sources(cls, settings_cls, init_settings, **_):
            return init_settings, SentraSettingsSource(settings_cls, kms)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, LiteralString, cast, get_args

try:
    from pydantic import ValidationError
    from pydantic_core import InitErrorDetails, PydanticCustomError
    from pydantic_core.core_schema import ErrorType
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in {
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
    }:
        raise
    raise ModuleNotFoundError(
        'sentra_kms.contrib.pydantic_settings needs pydantic-settings: pip install "sentra-kms'
        '[pydantic-settings]"',
        name=_error.name,
    ) from None

from sentra_kms.material import Secret
from sentra_kms.redaction import Masker
from sentra_kms.secrets.manager import SecretManager

if TYPE_CHECKING:
    from sentra_kms.runtime import KMS

_HIDDEN = "(a secret, not shown)"
_HIDDEN_KEY = "(a key, not shown)"
_OF_THE_INPUT = {
    "assertion_error",
    "bytes_invalid_encoding",
    "get_attribute_error",
    "iteration_error",
    "mapping_type",
    "timezone_offset",
    "union_tag_invalid",
    "uuid_parsing",
    "value_error",
}
_PLAIN_TYPES = frozenset(get_args(ErrorType)) - _OF_THE_INPUT
"""Errors whose text is pydantic's own and holds nothing of the value."""


class SentraSettingsSource(EnvSettingsSource):
    """Fields from declared secrets, found by name as environment variables are.

    So a field `database_url` is the secret `DATABASE_URL`; `env_prefix`, aliases, `case_sensitive`
    and, for nested models, `env_nested_delimiter` or a secret that is JSON work as they do for
    variables. Only the secrets that fields name are fetched, together. One that is declared and
    cannot be had is the error of `SecretManager.get`: no default takes its place.

    A `ValidationError` of the settings class holds no value, neither in its message nor in
    `.errors()`: each `input` is hidden, and so are the text of validators' own errors and the keys
    of a value's objects in each `loc`, unless they are names of fields.
    """

    def __init__(self, settings_cls: type[BaseSettings], kms: KMS | SecretManager) -> None:
        self._secrets = kms if isinstance(kms, SecretManager) else kms.secrets
        super().__init__(settings_cls)
        _guard(settings_cls, self._secrets)

    def __repr__(self) -> str:
        return f"SentraSettingsSource({self.settings_cls.__name__})"

    def __call__(self) -> dict[str, Any]:
        """Return the fields' values."""
        try:
            return super().__call__()
        except SettingsError as error:
            failure = str(error)
        # Anew: its cause is a JSON error, which holds the whole value.
        raise SettingsError(failure)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        names = {
            name if self.case_sensitive else name.lower(): name for name in self._secrets.names()
        }
        wanted = [
            wanted
            for field_name, field in self.settings_cls.model_fields.items()
            for _, wanted, _ in self._extract_field_info(field, field_name)
        ]
        used = {
            key: name
            for key, name in names.items()
            if any(
                key == each
                or (self.env_nested_delimiter and key.startswith(each + self.env_nested_delimiter))
                for each in wanted
            )
        }
        found = self._secrets.get_many(used.values())
        return _Values({key: found[name] for key, name in used.items()})


class _Values(Mapping[str, str | None]):
    """Values by the names that pydantic-settings looks for, as they were together; never shown."""

    def __init__(self, secrets: dict[str, Secret]) -> None:
        self._secrets = secrets

    def __getitem__(self, key: str) -> str:
        return self._secrets[key].reveal()

    def __iter__(self) -> Iterator[str]:
        return iter(self._secrets)

    def __len__(self) -> int:
        return len(self._secrets)

    def __repr__(self) -> str:
        return f"_Values({', '.join(self._secrets)})"


class _Guarded:
    """A settings class's validator whose errors hold no value."""

    def __init__(
        self,
        validator: Any,  # noqa: ANN401
        secrets: SecretManager,
        schema: object,
    ) -> None:
        self.validator = validator
        self._secrets = secrets
        self._schema = schema

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        found = getattr(self.validator, name)
        if not name.startswith("validate_"):
            return found

        def validate(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            try:
                return found(*arguments, **options)
            except ValidationError as error:
                failure = _without_values(error, self._secrets, arguments, self._schema)
            del arguments, options  # this frame is in the traceback
            raise failure

        return validate


def _guard(settings_cls: type[BaseSettings], secrets: SecretManager) -> None:
    """Put a guard around a class's validator, which is the only place that sees every error."""
    validator: object = settings_cls.__pydantic_validator__
    if isinstance(validator, _Guarded):
        validator = validator.validator
    guarded = _Guarded(validator, secrets, settings_cls.__pydantic_core_schema__)
    setattr(settings_cls, "__pydantic_validator__", guarded)  # noqa: B010


def _keys(given: object) -> set[str]:
    """Return the keys of all objects in what was given, also in JSON that is text yet."""
    found: set[str] = set()
    ahead = [given]
    while ahead:
        each = ahead.pop()
        if isinstance(each, (str, bytes)) and each.lstrip()[:1] in {"{", "[", b"{", b"["}:
            with suppress(ValueError, RecursionError):
                ahead.append(json.loads(each))
        elif isinstance(each, Mapping):
            members = cast("Mapping[object, object]", each)
            found.update(key for key in members if isinstance(key, str))
            ahead += members.values()
        elif isinstance(each, (list, tuple)):
            ahead += cast("Sequence[object]", each)
    return found


def _fields(schema: object) -> set[str]:
    """Return the names and aliases of fields, at any depth: all texts of a schema are the class's.

    It is what pydantic made of the classes, and holds nothing of any value.
    """
    found: set[str] = set()
    ahead, seen = [schema], set[int]()
    while ahead:
        each = ahead.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, str):
            found.add(each)
        elif isinstance(each, Mapping):
            members = cast("Mapping[object, object]", each)
            ahead += (*members, *members.values())
        elif isinstance(each, (list, tuple)):
            ahead += cast("Sequence[object]", each)
    return found


def _without_values(
    error: ValidationError, secrets: SecretManager, given: object, schema: object
) -> ValidationError:
    hidden = _keys(given) - _fields(schema)
    masker = Masker(secret.reveal_bytes() for secret in secrets.live())
    details: list[InitErrorDetails] = []
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        text = masker.text(each["msg"])
        if each["type"] not in _PLAIN_TYPES:
            text = "A validator refused the value; its text is not shown, as it may hold the value"
        told = PydanticCustomError(_literal(masker.text(each["type"])), _literal(text))
        place = tuple(_HIDDEN_KEY if at in hidden else at for at in each["loc"])
        details.append(InitErrorDetails(type=told, loc=place, input=_HIDDEN))
    return ValidationError.from_exception_data(error.title, details)


def _literal(text: str) -> LiteralString:
    """Pass text that is data, where pydantic expects a literal."""
    value: Any = text
    return value  # type: ignore[no-any-return]
