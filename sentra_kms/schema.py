"""The JSON Schema of `sentra-kms.toml`, made of the same types that check it.

For editors: with it they complete and check the file as it is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import msgspec

from sentra_kms.config import DURATION_PATTERN
from sentra_kms.discovery import FoundType, find_type, installed_types
from sentra_kms.reference import BACKEND_NAME, KekName, Reference
from sentra_kms.secrets.declaration import NAME_PATTERN, PartTable, SecretTable, TemplateTable
from sentra_kms.secrets.transforms import TRANSFORMS
from sentra_kms.settings import (
    DEFAULT_POLICY,
    AuditSettings,
    AuthSource,
    CacheSettings,
    Duration,
    KeysSettings,
    PolicySettings,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, object]

_NAME = BACKEND_NAME
_TEXTS: dict[type, Schema] = {
    Duration: {"type": "string", "pattern": f"^{DURATION_PATTERN}$", "examples": ["60s", "5m"]},
    KekName: {"type": "string", "pattern": f"^{_NAME}:.+$", "examples": ["local:2026-11"]},
    Reference: {
        "type": "string",
        "pattern": rf"^(ref\+)?{_NAME}://.+$",
        "examples": ["env://NAME"],
    },
    AuthSource: {"type": "string", "pattern": f"^{_NAME}:.+$"},
}


def config_schema(types: Iterable[FoundType] | None = None) -> Schema:
    """Return the schema, with the settings of `types` (default: all that are installed).

    Raises what `discovery.find_type` raises for a type that cannot be used.
    """
    found = [find_type(name) for name in installed_types()] if types is None else list(types)
    definitions: Schema = {}
    keys = _table(KeysSettings, definitions, "keys")
    sources = _members(keys, "properties")["authenticate_with"]
    sources.pop("default", None)  # the default is made of wrap_with; an empty list is refused
    sources["minItems"] = 1
    tables: Schema = {
        "backends": {
            "type": "object",
            "propertyNames": {"pattern": f"^{_NAME}$"},
            "additionalProperties": {"anyOf": [_backend(each, definitions) for each in found]},
        },
        "keys": keys,
        "policies": {
            "type": "object",
            "propertyNames": {"not": {"const": DEFAULT_POLICY}},
            "additionalProperties": _table(PolicySettings, definitions, "policies"),
        },
        "secrets": _secrets(definitions),
        "cache": _table(CacheSettings, definitions, "cache"),
        "audit": _table(AuditSettings, definitions, "audit"),
    }
    properties = {name: {"$ref": f"#/$defs/{name}"} for name in tables}
    return {
        "$schema": DIALECT,
        "title": "sentra-kms.toml",
        "type": "object",
        "properties": {
            "default_environment": {
                "type": "string",
                "description": "The environment to use when none is named; no development one.",
            },
            "shared": {
                "description": "Merged into each environment, tables by key.",
                "type": "object",
                "additionalProperties": False,
                "properties": properties,
            },
        },
        "additionalProperties": {
            "description": "An environment.",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "development": {
                    "type": "boolean",
                    "default": False,
                    "description": "Allow env:// references and backends for development only.",
                },
                **properties,
            },
        },
        "$defs": {**definitions, **tables},
    }


def _secrets(definitions: Schema) -> Schema:
    """Return the schema of `[ENV.secrets]`: references, tables with `from`, and with `template`."""
    kinds: dict[str, Schema] = {}
    for name, kind in (("secret", SecretTable), ("template", TemplateTable), ("part", PartTable)):
        properties = _members(_table(kind, definitions, f"secrets.{name}"), "properties")
        _one_or_several(properties)
        kinds[name] = {"type": "object", "additionalProperties": False, "properties": properties}
    kinds["secret"]["required"] = kinds["part"]["required"] = ["from"]
    kinds["template"]["required"] = ["template"]
    references = _members(kinds["part"], "properties")["from"]["anyOf"]
    kinds["template"]["additionalProperties"] = {
        "anyOf": [*cast("list[Schema]", references), kinds["part"]]
    }
    kinds["template"]["propertyNames"] = {"not": {"enum": ["from", "transform"]}}
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
        "additionalProperties": {
            "anyOf": [_TEXTS[Reference], kinds["secret"], kinds["template"]],
        },
    }


def _one_or_several(properties: dict[str, Schema]) -> None:
    """Let a list of references or transforms be one of them without brackets."""
    for key, one in (
        ("from", _TEXTS[Reference]),
        ("transform", {"type": "string", "enum": list(TRANSFORMS)}),
    ):
        if key in properties:
            several = {**properties[key], "items": one}
            several.pop("default", None)
            properties[key] = {
                "description": several.pop("description"),
                "anyOf": [one, several],
            }


def _backend(found: FoundType, definitions: Schema) -> Schema:
    table = _table(found.kind.settings, definitions, f"backends.{found.name}")
    return {
        "type": "object",
        "description": found.kind.summary,
        "additionalProperties": False,
        "properties": {
            "type": {"const": found.name},
            "timeout": {**_TEXTS[Duration], "default": "5s"},
            **_members(table, "properties"),
        },
    }


def _table(kind: type[msgspec.Struct], definitions: Schema, place: str) -> Schema:
    """Return a table's schema itself; what it refers to goes to `definitions`.

    There under names of its own, that begin with `place`: two distributions may name types alike.
    """
    (reference,), components = msgspec.json.schema_components(
        [kind], schema_hook=_text_schema, ref_template=f"#/$defs/{place}.{{name}}"
    )
    own = str(reference["$ref"]).removeprefix(f"#/$defs/{place}.")
    table: Schema = components.pop(own)
    definitions.update({f"{place}.{name}": schema for name, schema in components.items()})
    # Its title and docstring speak of the record; and what it requires may stand in [shared].
    for name in ("title", "description", "required"):
        table.pop(name, None)
    table["properties"] = {
        name: _without_null(schema) for name, schema in _members(table, "properties").items()
    }
    return table


def _without_null(schema: Schema) -> Schema:
    """Drop null, which TOML cannot write: an absent key says it."""
    choices = cast("list[Schema]", schema.get("anyOf", []))
    if {"type": "null"} not in choices:
        return schema
    kept = [choice for choice in choices if choice != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    return {**rest, **(kept[0] if len(kept) == 1 else {"anyOf": kept})}


def _members(schema: Schema, name: str) -> dict[str, Schema]:
    return cast("dict[str, Schema]", schema.get(name, {}))


def _text_schema(kind: type) -> Schema:
    # A type of a plugin's own is made from text, as the configuration does it.
    return dict(_TEXTS.get(kind, {"type": "string"}))
