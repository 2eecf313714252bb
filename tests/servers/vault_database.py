"""A real Vault whose database engine makes logins in a real PostgreSQL, both of this run's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from tests.needs import need
from tests.servers import postgres, vault_server
from tests.servers.postgres import Postgres
from tests.servers.vault_binary import provide_postgres_plugin
from tests.servers.vault_server import Vault, VaultError

_PLUGIN = "postgresql-database-plugin"
_MAKE = """create role "{{name}}" with login password '{{password}}' valid until '{{expiration}}'"""


class Database:
    """The engine at `database`, and the server that it makes logins in."""

    def __init__(self, vault: Vault, server: Postgres) -> None:
        self.vault = vault
        self.server = server

    def role(self, name: str, default_ttl: str, max_ttl: str) -> None:
        """Write a role; times are as Vault has them, such as `"90s"`."""
        self.vault.write(
            f"database/roles/{name}",
            db_name="server",
            creation_statements=[_MAKE],
            default_ttl=default_ttl,
            max_ttl=max_ttl,
        )

    def lets_in(self, user: str, password: str) -> bool:
        """Whether the database accepts a login."""
        import psycopg

        where = f"host=127.0.0.1 port={self.server.port} dbname=postgres"
        try:
            psycopg.connect(where, user=user, password=password).close()
        except psycopg.OperationalError:
            return False
        return True

    def has_user(self, name: str) -> bool:
        """Whether the database knows a user."""
        import psycopg

        with psycopg.connect(self.server.as_admin, password=postgres.ADMIN_PASSWORD) as connection:
            found = connection.execute("select 1 from pg_roles where rolname = %s", [name])
            return found.fetchone() is not None

    def leases(self, role: str) -> list[str]:
        """Return the ids of the leases that Vault has of a role."""
        prefix = f"database/creds/{role}/"
        return [prefix + each for each in self.vault.list(f"sys/leases/lookup/{prefix}")]

    def seconds_left(self, lease: str) -> int:
        """Return the whole seconds that a lease still has; -1 if it is over."""
        try:
            answer = self.vault.ask("PUT", "sys/leases/lookup", {"lease_id": lease})
        except VaultError:
            return -1
        found: int = answer["data"]["ttl"]
        return found

    def lasts(self, lease: str) -> timedelta:
        """Return how long a lease lives in all, with what it was prolonged by."""
        found = self.vault.ask("PUT", "sys/leases/lookup", {"lease_id": lease})["data"]
        made, ends = (datetime.fromisoformat(found[each]) for each in ("issue_time", "expire_time"))
        return ends - made

    def revoke(self, role: str) -> None:
        """Revoke every lease of a role, as an operator does."""
        self.vault.ask("PUT", f"sys/leases/revoke-prefix/database/creds/{role}", {"sync": True})


@contextmanager
def running() -> Iterator[Database]:
    """Run both for as long as the block lasts."""
    plugin = provide_postgres_plugin()
    with (
        vault_server.running(plugin.parent if plugin else None) as vault,
        postgres.running() as server,
    ):
        need(_has_plugin(vault), "Vault's plugin for PostgreSQL, or Go to build it")
        if "database/" not in vault.read("sys/mounts")["data"]:
            vault.write("sys/mounts/database", type="database")
        vault.write(
            "database/config/server",
            plugin_name=_PLUGIN,
            allowed_roles="*",
            connection_url="postgresql://{{username}}:{{password}}@127.0.0.1:"
            f"{server.port}/postgres?sslmode=disable",
            username=postgres.ADMIN,
            password=postgres.ADMIN_PASSWORD,
        )
        yield Database(vault, server)


def _has_plugin(vault: Vault) -> bool:
    try:
        vault.read(f"sys/plugins/catalog/database/{_PLUGIN}")
    except VaultError:
        return False
    return True
