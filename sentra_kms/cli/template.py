"""The configuration that `sentra-kms init` writes."""

from __future__ import annotations

from datetime import date

SCHEMA_NAME = "sentra-kms.schema.json"

_TEMPLATE = """\
#:schema ./@schema@
# The line above is for editors with taplo ("Even Better TOML"): they complete and check this file
# by the schema beside it. To make that, and anew after installing a backend:
#   sentra-kms config schema --output @schema@
#
# Configuration of sentra_kms: where keys are, never the keys themselves. It may be committed.
#
# A line that begins with "#" and no space after it is a setting that is not in force: it shows
# the default, or an example. Durations are written like "500ms", "60s", "5m", "1h" or "30d".
# Relative paths start at this file.

# The environment for a process that names none by argument or SENTRA_KMS_ENV. It may not be a
# development environment: a server that forgot its environment must not make keys of its own.
#default_environment = "production"

# What stands under [shared] is merged into every environment.
#[shared.cache]
#key_ttl = "5m"       # an unwrapped tenant key is kept in memory this long
#ring_ttl = "60s"     # a change that another process made is in force within this
#max_stale = "1h"     # while a service is out of reach, go on this long with what is in memory
#max_keys = 10000     # tenant keys kept in memory

#[shared.audit]
#observers = []       # installed observers, by name, that are shown every operation

# ----------------------------------------------------------------------------------------------
[development]
development = true    # allows env:// references and the memory backend, here only

# A backend of type "local": KEKs made of master keys, and a directory of key rings.
[development.backends.local]
type = "local"
directory = "keys"    # absent: the variable ENCRYPTION_KEYS_DIR, then /app/keys
#timeout = "5s"       # how long one operation on this backend may take

# Each KEK's name, and where its master key is (32 bytes or more: `sentra-kms keygen`).
[development.backends.local.master_keys]
"@new@" = "env://ENCRYPTION_MASTER_KEY"

[development.keys]
wrap_with = ["local:@new@"]    # BACKEND:KEY; all of them wrap, any one unwraps
store = "local"                 # the backend that keeps the key rings

# ----------------------------------------------------------------------------------------------
[production.backends.local]
type = "local"
directory = "/app/keys"         # mode 700, owned by the service; the files in it have mode 600
#timeout = "5s"

[production.backends.local.master_keys]
"@new@" = "file:///run/secrets/encryption_master_key"
# While a master key is being replaced, the earlier one under its own name:
#"@old@" = "file:///run/secrets/encryption_master_key_@old@"

# Where key rings were before, while they move:
#[production.backends.before]
#type = "local"
#directory = "/app/former-keys"

[production.keys]
wrap_with = ["local:@new@"]
store = "local"
# KEKs that still unwrap but wrap nothing any more. To replace a master key: add the new one
# above, name it in wrap_with and the earlier one here, deploy, run
# `sentra-kms tenant rewrap --all`, and remove the earlier one when nothing depends on it.
#unwrap_with = ["local:@old@"]
# What authenticates key rings: BACKEND:KEY of a local key, or a reference to base64 of 32 bytes.
# The first signs, any verifies. Absent: every KEK of wrap_with, then of unwrap_with.
#authenticate_with = ["local:@new@", "local:@old@"]
#min_wraps = 1                  # how many KEKs of wrap_with must wrap; absent: all
#rotate_after = "365d"          # `tenant list` and `doctor` show what is older
#previous_store = "before"      # while rings move to store: where some of them still are

# Other KEKs for some tenants: `sentra-kms tenant create NAME --policy gold`. What a policy omits is
# that of [production.keys] and [production.cache].
#[production.policies.gold]
#wrap_with = ["local:@new@"]
#key_ttl = "30s"

# Secrets by name, for kms.secrets and `sentra-kms exec`: a reference, a list of which the next is
# asked only if one is not found, or a template of several parts.
#[production.secrets]
#SENTRASCAN_SECRET = { from = "docker://session_secret", max_age = "90d" }
#DATABASE_URL = { from = ["docker://database_url", "systemd://database_url"], ttl = "10m" }
"""


def config_text(today: date) -> str:
    """Return the text, with master keys named after this month and the one a year ago.

    >>> '"2026-11" = "env://ENCRYPTION_MASTER_KEY"' in config_text(date(2026, 11, 23))
    True
    """
    text = _TEMPLATE.replace("@schema@", SCHEMA_NAME)
    new = f"{today.year}-{today.month:02}"
    old = f"{today.year - 1}-{today.month:02}"
    return text.replace("@new@", new).replace("@old@", old)
