"""The built-in sources of secrets pass the suite that third parties' backends pass."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from sentra_kms.reference import Reference
from sentra_kms.testing import BackendHarness, SecretConformance, SecretSample, WholeConformance

_DATA = b"correct horse battery staple"


class LocalSource(BackendHarness):
    absent: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("answer_unknown", "cut", "requests", "stall", "throttle"),
            "it is on this machine, and no service",
        ),
        "secret_version": "there is one version",
    }


class EnvHarness(LocalSource):
    type = "env"

    def secret(self) -> SecretSample:
        self.patch.setenv("KIT_SECRET", _DATA.decode("ascii"))
        return SecretSample("env://KIT_SECRET", _DATA)

    def change_secret(self, reference: str, data: bytes) -> None:
        self.patch.setenv(Reference(reference).path, data.decode("ascii"))

    def delete_secret(self, reference: str) -> None:
        self.patch.delenv(Reference(reference).path)


class FileHarness(LocalSource):
    type = "file"

    def secret(self) -> SecretSample:
        return self._written("secret", _DATA)

    def binary_secret(self) -> SecretSample:
        return self._written("binary", b"\x00\xff binary \n")

    def field_secret(self) -> SecretSample:
        document = self._written("document", b'{"user": "sentra", "password": "%s"}\n' % _DATA)
        return SecretSample(f"{document.reference}#password", _DATA)

    def _written(self, name: str, data: bytes) -> SecretSample:
        path = self.path / name
        path.touch(0o600)
        path.write_bytes(data)
        return SecretSample(f"file://{path}", data)

    def missing_secret(self) -> str:
        return f"file://{self.path}/nothing"

    def change_secret(self, reference: str, data: bytes) -> None:
        Path(Reference(reference).path).write_bytes(data)

    def delete_secret(self, reference: str) -> None:
        Path(Reference(reference).path).unlink()


class DirectoryHarness(LocalSource):
    def open(self) -> None:
        (self.path / "secrets").mkdir()
        self.patch.setenv("CREDENTIALS_DIRECTORY", str(self.path / "secrets"))

    def secret(self) -> SecretSample:
        path = self.path / "secrets" / "one"
        path.touch(0o600)
        path.write_bytes(_DATA)
        return SecretSample(f"{self.type}://one", _DATA)

    def change_secret(self, reference: str, data: bytes) -> None:
        (self.path / "secrets" / Reference(reference).path).write_bytes(data)


class DockerHarness(DirectoryHarness):
    type = "docker"

    def settings(self) -> Mapping[str, object]:
        return {"directory": str(self.path / "secrets")}


class SystemdHarness(DirectoryHarness):
    type = "systemd"


class TestEnv(SecretConformance, WholeConformance):
    harness = EnvHarness


class TestDocker(SecretConformance, WholeConformance):
    harness = DockerHarness


class TestSystemd(SecretConformance, WholeConformance):
    harness = SystemdHarness


class TestFile(SecretConformance, WholeConformance):
    harness = FileHarness
