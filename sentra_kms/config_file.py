"""The configuration as it is written: where it is found, and which environment of it is meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import BinaryIO, TypeGuard, cast

from sentra_kms.errors import ConfigurationError, MalformedInput

FILE_NAME = "sentra-kms.toml"
FILE_VARIABLE = "SENTRA_KMS_CONFIG"
ENVIRONMENT_VARIABLE = "SENTRA_KMS_ENV"

_MAX_SIZE = 16 << 20  # bytes
_MAPPING = "the mapping passed to load()"
Table = dict[str, object]


class ConfigFile:
    """A whole configuration: `source` for messages, `base` for relative paths, its tables."""

    def __init__(self, source: str, base: str, tables: Table) -> None:
        self.source = source
        self.base = base
        self.tables = tables

    @classmethod
    def read(
        cls,
        source: str | os.PathLike[str] | Mapping[str, object] | None,
        base: str | None = None,
    ) -> ConfigFile:
        """Read a path, a mapping, or the file that the environment or directory has.

        `base` is where a mapping's relative paths start, by default the working directory.
        """
        failure: str
        if isinstance(source, Mapping):
            try:
                return cls(_MAPPING, base or os.getcwd(), _plain(source, ()))
            except RecursionError:
                failure = f"{_MAPPING} is nested without end"
            except OSError as error:
                failure = f"{_MAPPING}: {_no_directory(error)}"
            except ConfigurationError as error:
                failure = error.message
            raise ConfigurationError(failure)  # anew: frames below hold values
        if source is not None and not isinstance(source, (str, os.PathLike)):
            raise MalformedInput(
                f"a configuration is a path, a mapping or None, not {type(source).__name__}"
            )
        named = os.fsdecode(source or os.environ.get(FILE_VARIABLE) or FILE_NAME)
        try:
            return cls._read_file(os.path.abspath(named))
        except OSError as error:
            failure = f"{named}: {_no_directory(error)}"
        raise ConfigurationError(failure)

    @classmethod
    def _read_file(cls, path: str) -> ConfigFile:
        import tomllib  # only files need it

        failure: str
        try:
            with open(path, "rb") as file:
                return cls(path, os.path.dirname(path), tomllib.loads(_decoded(file)))
        except FileNotFoundError:
            failure = (
                f"no configuration at {path}: make one with `sentra-kms init`, or name it by "
                f"argument or {FILE_VARIABLE}"
            )
        except OSError as error:
            failure = f"{path} cannot be read: {os.strerror(error.errno or 0)}"
        except UnicodeDecodeError:
            failure = f"{path} is not UTF-8 text"
        except tomllib.TOMLDecodeError as error:
            # The parser's text names a line and column; it quotes a character, or a key.
            failure = f"{path} is not valid TOML: {error}"
        except _UnfitError as error:
            failure = f"{path} {error}"
        except (ValueError, RecursionError) as error:
            failure = f"{path!a} cannot be read: {type(error).__name__}"
        raise ConfigurationError(failure)

    def choose(self, asked: str | None) -> str:
        """Return the name of the environment that is meant."""
        if asked is not None and not isinstance(asked, str):
            raise MalformedInput(f"an environment is named by text, not {type(asked).__name__}")
        environments = self.environments()
        default = self._default(environments)
        name = asked or os.environ.get(ENVIRONMENT_VARIABLE) or None
        if name is None:
            if default is None:
                raise ConfigurationError(
                    f"{self.source}: no environment is named; it has {listed(environments)}: set "
                    f"{ENVIRONMENT_VARIABLE}, pass environment=, or set default_environment"
                )
            name = default
        if name not in environments:
            raise ConfigurationError(
                f"{self.source}: there is no environment '{name}'; it has {listed(environments)}"
                + nearest(name, environments)
            )
        return name

    def merged(self, name: str) -> Table:
        """Return an environment's table with `[shared]` merged in."""
        shared = self.tables.get("shared", {})
        if not is_table(shared):
            raise ConfigurationError(f"{self.source}: [shared] is a table")
        if "development" in shared:
            raise ConfigurationError(
                f"{self.source}: [shared]: 'development' stands in the environment that it is "
                "true of, so that no other becomes one by accident"
            )
        return _merge(shared, self.environments()[name])

    def environments(self) -> dict[str, Table]:
        """Return each environment's own table, `[shared]` not merged in."""
        found: dict[str, Table] = {}
        for name, table in self.tables.items():
            if name in {"shared", "default_environment"}:
                continue
            if not is_table(table):
                raise ConfigurationError(
                    f"{self.source}: unknown key '{name}' at the top; there stand "
                    "default_environment, [shared] and one table for each environment"
                    + nearest(name, ["default_environment", "shared"])
                )
            found[name] = table
        return found

    def _default(self, environments: dict[str, Table]) -> str | None:
        name = self.tables.get("default_environment")
        if name is None:
            return None
        if not isinstance(name, str) or name not in environments:
            raise ConfigurationError(
                f"{self.source}: default_environment names one of {listed(environments)}"
            )
        if self.merged(name).get("development") is True:
            raise ConfigurationError(
                f"{self.source}: default_environment may not name '{name}', a development "
                "environment: a process that forgot its environment would make keys there"
            )
        return name


class _UnfitError(Exception):
    """What is wrong with a file, without what is in it."""


def _decoded(file: BinaryIO) -> str:
    data = file.read(_MAX_SIZE + 1)
    if len(data) > _MAX_SIZE:
        raise _UnfitError(f"is larger than {_MAX_SIZE >> 20} MiB: no configuration is")
    if data.startswith(b"\xef\xbb\xbf"):
        raise _UnfitError("begins with a byte order mark: save it as UTF-8 without one")
    return data.decode("utf-8")


def _no_directory(error: OSError) -> str:
    told = os.strerror(error.errno or 0)
    return f"the working directory cannot be told ({told}): change to one that is there"


def _plain(table: Mapping[str, object], way: tuple[str, ...]) -> Table:
    """Copy tables of any kind of mapping, so that nothing changes while they are read."""
    return {_key(key, way): _plain_value(value, (*way, key)) for key, value in table.items()}


def _plain_value(value: object, way: tuple[str, ...]) -> object:
    if isinstance(value, Mapping):
        return _plain(cast("Mapping[str, object]", value), way)
    if isinstance(value, (list, tuple)):
        return [_plain_value(item, way) for item in cast("Iterable[object]", value)]
    if isinstance(value, str):
        _refuse_half_a_character(value, way)
    return value


def _key(key: object, way: tuple[str, ...]) -> str:
    if not isinstance(key, str):
        raise ConfigurationError(
            f"{_MAPPING}: a key {_at(way)} is {type(key).__name__}, and keys are text: quote it "
            "where it was written"
        )
    _refuse_half_a_character(key, way)
    return key


def _refuse_half_a_character(text: str, way: tuple[str, ...]) -> None:
    with suppress(UnicodeEncodeError):  # which holds the text
        text.encode("utf-8")
        return
    raise ConfigurationError(f"{_MAPPING}: text {_at(way)} has a lone surrogate")


def _at(way: tuple[str, ...]) -> str:
    return f"in [{'.'.join(way)}]" if way else "at the top"


def is_table(value: object) -> TypeGuard[Table]:
    """Whether a value of the configuration is a table."""
    return isinstance(value, dict)


def _merge(shared: Table, own: Table) -> Table:
    merged = dict(shared)
    for key, value in own.items():
        below = merged.get(key)
        if is_table(below) and is_table(value):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def listed(names: Iterable[str]) -> str:
    """Return names for an error message."""
    return ", ".join(sorted(names)) or "none"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is most like `name`, or nothing."""
    from difflib import get_close_matches  # only for an error

    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
