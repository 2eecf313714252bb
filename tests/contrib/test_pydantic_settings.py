"""`SentraSettingsSource`: fields from secrets, and no value in any error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import pytest
from pydantic import (
    BaseModel,
    Field,
    Json,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

import sentra_kms
from sentra_kms.contrib.pydantic_settings import SentraSettingsSource
from sentra_kms.errors import SecretNotFound
from sentra_kms.material import Secret
from sentra_kms.runtime import KMS
from tests.ground.leaks import locals_inside, shows

_S = TypeVar("_S", bound=BaseSettings)
PLANTED = "planted-s3cr3t-value"


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[KMS]:
    """Return a KMS with some secrets."""
    values = {
        "DATABASE_URL": f"postgresql://u:{PLANTED}@h/d",
        "PORT": "5432",
        "BAD_PORT": PLANTED,
        "DB": json.dumps({"user": "u", "password": PLANTED}),
        "BAD_DB": '{"user": "' + PLANTED,
        "NESTED__PASSWORD": PLANTED,
        "NESTED__USER": "u",
        "APP_TOKEN": PLANTED,
        "LIST": json.dumps([PLANTED, "b"]),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"IN_{name}", value)
    secrets = {name: f"env://IN_{name}" for name in values} | {"GONE": "env://NOT_SET"}
    with sentra_kms.load({"t": {"development": True, "secrets": secrets}}, "t") as kms:
        yield kms


class FromSecrets(BaseSettings):
    """Base of the settings here, whose only sources are arguments and secrets."""

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments first, then secrets."""
        return init_settings, SentraSettingsSource(settings_cls, _current[0])


_current: list[KMS] = []


@pytest.fixture(autouse=True)
def _use(kms: KMS) -> Iterator[None]:
    _current[:] = [kms]
    yield
    _current.clear()


class Login(BaseModel):
    """A nested model."""

    user: str
    password: SecretStr


def test_fields(kms: KMS) -> None:
    """Fields are found by name, in any case, and validated as their types say."""

    class Settings(FromSecrets):
        database_url: str
        port: int
        other: str = "default"

    settings = made(Settings)
    assert settings.database_url == f"postgresql://u:{PLANTED}@h/d"
    assert (settings.port, settings.other) == (5432, "default")
    assert made(Settings, port=1).port == 1


def test_aliases_and_prefix(kms: KMS) -> None:
    """Aliases and a prefix work as for environment variables."""

    class Settings(FromSecrets):
        model_config = SettingsConfigDict(env_prefix="APP_")
        token: SecretStr
        number: int = Field(validation_alias="PORT")

    settings = made(Settings)
    assert settings.token.get_secret_value() == PLANTED
    assert settings.number == 5432
    assert PLANTED not in repr(settings)


def test_nested_models(kms: KMS) -> None:
    """A nested model is a secret that is JSON, or several with a delimiter."""

    class Settings(FromSecrets):
        model_config = SettingsConfigDict(env_nested_delimiter="__")
        db: Login
        nested: Login
        list: list[str]

    settings = made(Settings)
    assert settings.db.password.get_secret_value() == PLANTED
    assert settings.nested.password.get_secret_value() == PLANTED
    assert settings.list == [PLANTED, "b"]


def test_only_what_fields_name_is_fetched(kms: KMS) -> None:
    """A secret that no field names is not fetched; one that is declared has no default instead."""

    class Settings(FromSecrets):
        port: int

    assert made(Settings).port == 5432
    assert len(kms.secrets.live()) == 2  # the value, and the document that it is

    class Gone(FromSecrets):
        gone: str = "default"

    with pytest.raises(SecretNotFound):
        made(Gone)


def test_fields_are_of_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rotation changes while settings are made is not mixed with what was before."""

    class Settings(FromSecrets):
        user: str
        password: str

    monkeypatch.setenv("IN_LOGIN", json.dumps({"user": "old", "password": "old"}))
    table = {"USER": "env://IN_LOGIN#user", "PASSWORD": "env://IN_LOGIN#password"}
    with sentra_kms.load({"t": {"development": True, "secrets": table}}, "t") as own:
        _current[:] = [own]
        reveal = Secret.reveal

        def rotate(secret: Secret) -> str:
            monkeypatch.setenv("IN_LOGIN", json.dumps({"user": "new", "password": "new"}))
            own.secrets.refresh("USER")
            return reveal(secret)

        monkeypatch.setattr(Secret, "reveal", rotate)
        settings = made(Settings)
    assert (settings.user, settings.password) == ("old", "old")


def made(kind: type[_S], **values: Any) -> _S:
    """Make settings, of which type checkers think that all come as arguments."""
    return kind(**values)


def told(error: ValidationError) -> str:
    """Return all that an error says."""
    return f"{error} {error!r} {error.errors()} {error.json()} {error.args} {error.__context__}"


def check(settings: type[BaseSettings], *types: str) -> ValidationError:
    """Return the error that making these settings ends in, having looked for values in it."""
    with pytest.raises(ValidationError) as caught:
        settings()
    assert not shows(told(caught.value), PLANTED.encode())
    assert [each["type"] for each in caught.value.errors()] == list(types)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def test_wrong_type(kms: KMS) -> None:
    """A value that its field refuses is named by its field and never shown."""

    class Settings(FromSecrets):
        bad_port: int
        missing: str

    error = check(Settings, "int_parsing", "missing")
    assert error.errors()[0]["loc"] == ("bad_port",)
    assert "valid integer" in error.errors()[0]["msg"]
    assert error.title == "Settings"


def test_nested_error(kms: KMS) -> None:
    """Also inside a nested model."""

    class Numbers(BaseModel):
        user: int
        password: int

    class Settings(FromSecrets):
        db: Numbers

    error = check(Settings, "int_parsing", "int_parsing")
    assert error.errors()[1]["loc"] == ("db", "password")


def test_keys_of_a_value_are_not_shown(kms: KMS, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of tokens has them for its keys: an error names its place without them."""

    class User(BaseModel):
        model_config = {"extra": "forbid"}
        name: str = Field(alias="shown-alias")
        age: int = 0

    class Settings(FromSecrets):
        plain: dict[str, int]
        text: Json[dict[str, int]]
        deep: dict[str, list[User]]
        short: dict[Annotated[str, Field(max_length=3)], int]

    values = {
        "PLAIN": {PLANTED: "x", "age": "y"},
        "TEXT": {PLANTED: {PLANTED: 1}},
        "DEEP": {PLANTED: [{"age": PLANTED, PLANTED: 2}]},
        "SHORT": {PLANTED: 1},
    }
    for name, value in values.items():
        monkeypatch.setenv(f"IN_{name}", json.dumps(value))
    table = {"development": True, "secrets": {name: f"env://IN_{name}" for name in values}}
    with sentra_kms.load({"t": table}, "t") as own:
        _current[:] = [own]
        error = check(Settings, *["int_parsing"] * 2, "int_type", "missing", "int_parsing",
                      "extra_forbidden", "string_too_long")  # fmt: skip
    assert not shows(locals_inside(error), PLANTED.encode())
    key = "(a key, not shown)"
    assert [each["loc"] for each in error.errors()] == [
        ("plain", key),
        ("plain", "age"),  # also the name of a field
        ("text", key),
        ("deep", key, 0, "shown-alias"),
        ("deep", key, 0, "age"),
        ("deep", key, 0, key),
        ("short", key, "[key]"),
    ]


def test_validators_that_quote_the_value(kms: KMS) -> None:
    """A validator's own text may hold the value: it is not shown."""

    class Field_(FromSecrets):  # noqa: N801
        database_url: str

        @field_validator("database_url")
        @classmethod
        def refuse(cls, value: str) -> str:
            """Quote the value."""
            raise ValueError(f"bad {value}")

    check(Field_, "value_error")

    class Model(FromSecrets):
        db: Login

        @model_validator(mode="after")
        def refuse(self) -> Model:
            """Quote a part of the value."""
            raise ValueError(f"bad {self.db.password.get_secret_value()}")

    check(Model, "value_error")

    class Before(FromSecrets):
        db: Login

        @model_validator(mode="before")
        @classmethod
        def refuse(cls, data: Any) -> Any:
            """Fail with an assertion about all of it."""
            assert data is None, f"{data}"
            return data

    check(Before, "assertion_error")


def test_errors_of_what_a_validator_returns(kms: KMS) -> None:
    """Nor is the text of what goes wrong while its answer is looked through."""

    class Lazy(FromSecrets):
        database_url: list[str]

        @field_validator("database_url", mode="before")
        @classmethod
        def parts(cls, value: str) -> Iterator[str]:
            """Fail late."""
            yield "x"
            raise ValueError(f"bad part of {value[13:]}")

    with pytest.raises(SettingsError):  # a list is JSON, for variables and so for secrets
        made(Lazy)

    class Plain(FromSecrets):
        database_url: Annotated[list[str], NoDecode]

        @field_validator("database_url", mode="before")
        @classmethod
        def parts(cls, value: str) -> Iterator[str]:
            """Fail late."""
            yield "x"
            raise ValueError(f"bad part of {value[15:-2]}")

    check(Plain, "iteration_error")


def test_json_that_is_none(kms: KMS) -> None:
    """A nested model whose secret is no JSON is told without the value, and without its cause."""

    class Settings(FromSecrets):
        bad_db: Login

    with pytest.raises(SettingsError, match='field "bad_db"') as caught:
        made(Settings)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not shows(f"{caught.value} {caught.value!r}", PLANTED.encode())


def test_again_and_in_subclasses(kms: KMS) -> None:
    """Each class is guarded at each use, and its good uses are as before."""

    class Settings(FromSecrets):
        bad_port: int = 1

    class Below(Settings):
        port: int

    for _ in range(2):
        check(Settings, "int_parsing")
        check(Below, "int_parsing")
    assert made(Below, bad_port=7).port == 5432
    assert Below.model_validate({"bad_port": 1, "port": 2}).port == 2


def test_source_shows_nothing(kms: KMS) -> None:
    """Neither the source nor its mapping shows a value."""

    class Settings(FromSecrets):
        database_url: str

    source = SentraSettingsSource(Settings, kms.secrets)
    assert not shows(f"{source!r} {source.env_vars!r}", PLANTED.encode())
