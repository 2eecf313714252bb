"""Backend types brought by distributions: found, and every fault refused with what to do."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sentra_kms
from sentra_kms import ConfigurationError, KMSError, PluginError, Reference
from sentra_kms.discovery import find_create, find_type, installed_types, registered_module
from tests.plugin.distributions import install

ROOT = Path(sentra_kms.__file__).parents[1]
REGISTRATION = """
from sentra_kms import Reference
from sentra_kms.hookspecs import hookimpl
from sentra_kms.hooktypes import BackendSettings, BackendType


class AcmeSettings(BackendSettings, frozen=True):
    address: str
    token: Reference | None = None
    retries: int = 3


@hookimpl
def backend_type() -> BackendType:
    return BackendType(
        api=(1, 0),
        settings=AcmeSettings,
        create="acme_backend:create",
        install="pip install sentra-kms-acme",
        summary="Acme",
    )
"""
BACKEND = """
from sentra_kms import KeyMaterial, SecretNotFound
from sentra_kms.hookspecs import PartHooks, SecretHooks, hookimpl
from sentra_kms.hooktypes import SecretValue


class Secrets(SecretHooks, PartHooks):
    @hookimpl
    def fetch_secret(self, request, timeout):
        return SecretValue(KeyMaterial(request.reference.path.encode()))


def create(settings, host):
    return Secrets()
"""
SECRET = "hunter2-correct-horse"


def bring(
    site: Path,
    *,
    name: str = "sentra-kms-acme",
    version: str = "1.0",
    kind: str = "acme",
    registration: str = REGISTRATION,
    backend: str = BACKEND,
) -> None:
    """Install a distribution that brings the backend type `kind`."""
    install(
        site,
        name,
        version=version,
        backends={kind: "acme_register"},
        modules={"acme_register": registration, "acme_backend": backend},
    )


def configured(kind: str = "acme", **settings: object) -> dict[str, object]:
    """Return a configuration with one backend of the type."""
    table = {"type": kind, "address": "here", **settings}
    return {"dev": {"development": True, "backends": {kind: table}}}


def refusal(kind: type[KMSError], call: Callable[[], object]) -> str:
    """Return with what words a call is refused."""
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.message


def test_brought_type_is_found(site: Path) -> None:
    """A type is found under its entry point's name, with the distribution that brings it."""
    bring(site, version="2.5")
    found = find_type("acme")
    assert (found.name, found.distribution, found.version) == ("acme", "sentra-kms-acme", "2.5")
    assert "acme" in installed_types()
    assert "acme_backend" not in sys.modules
    assert find_create(found).__module__ == "acme_backend"


def test_brought_type_is_loaded(site: Path) -> None:
    """A configuration that names it gets a working backend."""
    bring(site)
    with sentra_kms.load(configured(token="env://TOKEN"), "dev") as kms:
        assert kms.examine() == []


FAULTS: dict[str, tuple[str, str, list[str]]] = {
    "does not parse": ("def", "def def", ["failed to import: SyntaxError"]),
    "imports its SDK": (
        "from sentra_kms import Reference",
        "import acme_sdk\nfrom sentra_kms import Reference",
        ["failed to import: ModuleNotFoundError (acme_sdk)", "may import no SDK"],
    ),
    "raises at import": (
        "@hookimpl",
        f"raise RuntimeError('{SECRET}')\n@hookimpl",
        ["failed to import: RuntimeError"],
    ),
    "registers nothing": ("@hookimpl\n", "", ["has 0 hooks backend_type: it needs one"]),
    "registers by a function of another name": (
        "def backend_type",
        "def backend_types",
        ["has 0 hooks backend_type: it needs one"],
    ),
    "raises when it registers": (
        "    return BackendType(",
        f"    raise RuntimeError('{SECRET}')\n    return BackendType(",
        ["raised RuntimeError"],
    ),
    "registers None": ("return BackendType", "BackendType", ["registers NoneType, not one"]),
    "registers two in a list": (
        '        summary="Acme",\n    )',
        '        summary="Acme",\n    ), 2',
        ["registers tuple, not one BackendType"],
    ),
    "registers two by two hooks": (
        "@hookimpl\ndef backend_type",
        "@hookimpl(specname='backend_type')\ndef second(): ...\n@hookimpl\ndef backend_type",
        ["has 2 hooks backend_type: it needs one"],
    ),
    "registers by a coroutine": (
        "def backend_type",
        "async def backend_type",
        ["registers coroutine, not one BackendType"],
    ),
    "takes an argument": (
        "def backend_type()",
        "def backend_type(x)",
        ["marks a hook that is not as specified", "backend_type() and register_commands(cli)"],
    ),
    "has commands that take another argument": (
        "@hookimpl",
        "@hookimpl\ndef register_commands(cli, x): ...\n@hookimpl",
        ["marks a hook that is not as specified"],
    ),
    "marks a hook that there is not": (
        "@hookimpl",
        "@hookimpl\ndef register_command(cli): ...\n@hookimpl",
        ["marks a hook that is not as specified"],
    ),
    "is made for another sentra-kms": (
        "@hookimpl",
        "from sentra_kms.hookspecs import StreamHooks\n@hookimpl",
        ["failed to import: ImportError (sentra_kms.hookspecs): it imports what sentra-kms "],
    ),
    "imports a module of another sentra-kms": (
        "@hookimpl",
        "import sentra_kms.streams\n@hookimpl",
        ["failed to import: ModuleNotFoundError (sentra_kms.streams): it imports what sentra-kms"],
    ),
    "has a setting that is the core's": (
        "retries: int",
        "timeout: int",
        ["settings with a field 'timeout', which the core reads for every backend"],
    ),
    "has a setting that is written as the core's": (
        "    retries: int = 3",
        "    kind: str = __import__('msgspec').field(name='type', default='')",
        ["settings with a field 'type'"],
    ),
    "has no summary": ('summary="Acme"', "summary=None", ["gives summary as NoneType"]),
    "is for development by text": (
        'summary="Acme"',
        'summary="Acme", development_only="no"',
        ["gives development_only as str"],
    ),
    "wants a newer minor": (
        "api=(1, 0)",
        "api=(1, 1)",
        ["is written for hook API 1.1, this sentra-kms has 1.0: upgrade sentra-kms"],
    ),
    "wants a newer major": (
        "api=(1, 0)",
        "api=(2, 0)",
        ["is written for hook API 2.0, this sentra-kms has 1.0: upgrade sentra-kms"],
    ),
    "is of an older major": (
        "api=(1, 0)",
        "api=(0, 9)",
        ["is written for hook API 0.9, this sentra-kms has 1.0: upgrade it"],
    ),
    "has an api of one number": ("api=(1, 0)", "api=1", ["no api of two numbers, such as (1, 0)"]),
    "has settings of another kind": (
        "settings=AcmeSettings",
        "settings=dict",
        ["settings that are no subclass of BackendSettings"],
    ),
    "names create badly": (
        "acme_backend:create",
        "acme_backend.create",
        ["names create as 'acme_backend.create', not 'package.module:name'"],
    ),
}
"""Each as a replacement in the good registration, and the words that tell of it."""


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_registration_is_refused(
    site: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A module that registers wrongly is refused; the distribution is named, its texts are not."""
    before, after, told = FAULTS[fault]
    assert before in REGISTRATION
    bring(site, registration=REGISTRATION.replace(before, after, 1))
    caplog.set_level(logging.DEBUG)
    message = refusal(PluginError, lambda: find_type("acme"))
    assert "acme_register of sentra-kms-acme" in message
    for words in told:
        assert words in message
    assert SECRET not in message
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "value", ["acme_register:backend_type", "acme_register [sdk]", "acme register", ".register"]
)
def test_entry_point_that_is_no_module(site: Path, value: str) -> None:
    """An entry point that names a function, or no module at all, is told what it should name."""
    bring(site)
    install(site, "acme-two", backends={"two": value})
    message = refusal(PluginError, lambda: find_type("two"))
    assert f"module {value} of acme-two" in message
    assert "is no module: the entry point's value is the path of one, without ':'" in message


@pytest.mark.parametrize(
    "entries", [b"[sentra_kms.backends]\nacme\n", b"\xff\xfe", b"[other]\nx\n"]
)
def test_entry_points_that_cannot_be_read(site: Path, entries: bytes) -> None:
    """One distribution whose file is broken fails every look: it is named."""
    bring(site)
    (site / "sentra_kms_acme-1.0.dist-info" / "entry_points.txt").write_bytes(entries)
    message = refusal(ConfigurationError, lambda: find_type("acme"))
    assert message == (
        f"the entry points of sentra-kms-acme in {site} cannot be read: install it anew, or "
        "uninstall it"
    )


def test_distribution_without_metadata(site: Path) -> None:
    """One that is half uninstalled is told like any other, as far as anything is known of it."""
    bring(site)
    (site / "sentra_kms_acme-1.0.dist-info" / "METADATA").unlink()
    assert find_type("acme").distribution == "an unknown distribution"
    install(site, "acme-kms", backends={"acme": "acme_other"})
    message = refusal(ConfigurationError, lambda: find_type("acme"))
    assert "brought by acme-kms 1.0 and an unknown distribution ?" in message


def test_module_that_is_not_there(site: Path) -> None:
    """An entry point whose module is missing is refused, with distribution and module."""
    install(site, "sentra-kms-acme", backends={"acme": "acme_missing"})
    message = refusal(PluginError, lambda: find_type("acme"))
    assert "module acme_missing of sentra-kms-acme" in message
    assert "failed to import: ModuleNotFoundError" in message
    assert message.endswith("it is not there: install the distribution anew")


@pytest.mark.parametrize("reserved", ["local", "memory", "env", "file", "docker", "systemd"])
def test_reserved_name_is_refused(site: Path, reserved: str) -> None:
    """A distribution that claims a built-in type is named, also to users of its other types."""
    bring(site)
    install(site, "sentra-kms-thief", version="6.6", backends={reserved: "thief"})
    message = refusal(PluginError, lambda: find_type("acme"))
    assert f"sentra-kms-thief 6.6 claims the built-in backend type '{reserved}'" in message


def test_built_in_type_is_never_anothers(site: Path) -> None:
    """A built-in type is ours, whatever claims it."""
    install(site, "sentra-kms-thief", backends={"memory": "thief"})
    assert find_type("memory").distribution == "sentra-kms"


def test_two_distributions_of_one_type(site: Path) -> None:
    """Of two that bring one type none is taken; both are named, with versions."""
    bring(site)
    install(site, "acme-kms", version="3.1", backends={"acme": "acme_other"})
    message = refusal(ConfigurationError, lambda: find_type("acme"))
    assert "acme-kms 3.1 and sentra-kms-acme 1.0: uninstall all but one" in message
    assert "acme_register" not in sys.modules
    message = refusal(ConfigurationError, lambda: sentra_kms.load(configured(), "dev"))
    assert message.endswith("uninstall all but one")


def test_one_distribution_found_twice(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution that is found over two entries of the path is one."""
    bring(site)
    monkeypatch.syspath_prepend(str(tmp_path / "again"))
    (tmp_path / "again").symlink_to(site)
    assert find_type("acme").distribution == "sentra-kms-acme"


def test_unknown_type(site: Path) -> None:
    """A type that nobody brings: what there is is listed, with what to do and the nearest."""
    bring(site)
    message = refusal(ConfigurationError, lambda: sentra_kms.load(configured("memori"), "dev"))
    assert "no backend type 'memori' is installed" in message
    assert "local, memory" in message
    assert "acme (sentra-kms-acme 1.0)" in message
    assert "install the distribution" in message
    assert "did you mean 'memory'?" in message
    message = refusal(ConfigurationError, lambda: sentra_kms.load(configured("acmee"), "dev"))
    assert "did you mean 'acme'?" in message


def test_missing_sdk(site: Path) -> None:
    """When creating needs a module that is missing, what to install is told."""
    bring(site, backend="import acme_sdk.http\n" + BACKEND)
    found = find_type("acme")
    message = refusal(ConfigurationError, lambda: find_create(found))
    assert "'acme' of sentra-kms-acme 1.0 cannot be used: module acme_sdk is missing" in message
    assert message.endswith("install it with: pip install sentra-kms-acme")


def test_missing_sdk_is_told_by_load(site: Path) -> None:
    """The one who loads the configuration is told so, too."""
    bring(site, backend="import acme_sdk\n" + BACKEND)
    message = refusal(ConfigurationError, lambda: sentra_kms.load(configured(), "dev"))
    assert "pip install sentra-kms-acme" in message


@pytest.mark.parametrize(
    ("create", "kind", "told"),
    [
        ("acme_backend:make", PluginError, "names acme_backend:make to create it, which does not"),
        ("acme_backend:__name__", PluginError, "to create it, which is str: no function"),
        ("acme_nowhere:create", ConfigurationError, "module acme_nowhere is missing"),
    ],
)
def test_create_that_is_not_there(site: Path, create: str, kind: type[KMSError], told: str) -> None:
    """A `create` that cannot be imported is told, with the distribution."""
    bring(site, registration=REGISTRATION.replace("acme_backend:create", create))
    found = find_type("acme")
    message = refusal(kind, lambda: find_create(found))
    assert told in message
    assert "sentra-kms-acme" in message


def test_backend_made_for_another_core(site: Path) -> None:
    """A backend that needs what this core lacks is not said to lack an SDK."""
    bring(site, backend="from sentra_kms.hookspecs import StreamHooks\n" + BACKEND)
    found = find_type("acme")
    message = refusal(PluginError, lambda: find_create(found))
    assert f"it imports what sentra-kms {sentra_kms.__version__} does not have" in message
    assert "pip install" not in message


def test_sdk_that_lacks_what_is_imported(site: Path) -> None:
    """An SDK of another version is there; what of it is missing is not the module."""
    bring(site, backend="from click import nothing_such\n" + BACKEND)
    found = find_type("acme")
    message = refusal(ConfigurationError, lambda: find_create(found))
    assert "what it imports from click is missing; install it with: pip install" in message


def test_create_that_is_made_when_it_is_asked_for(site: Path) -> None:
    """A module that raises when it is asked for `create` is told like one that fails to import."""
    bring(site, backend=f"def __getattr__(name):\n    raise RuntimeError('{SECRET}')")
    message = refusal(PluginError, lambda: sentra_kms.load(configured(), "dev"))
    assert "failed to import acme_backend: RuntimeError" in message
    assert SECRET not in message


def test_create_whose_import_raises(site: Path) -> None:
    """What the backend's module raises when it is imported is not let through, nor its text."""
    bring(site, backend=f"raise RuntimeError('{SECRET}')")
    message = refusal(PluginError, lambda: sentra_kms.load(configured(), "dev"))
    assert SECRET not in message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('addres = "here"', "unknown key 'addres'; did you mean 'address'?"),
        ("", "missing required field `address`"),
        ("address = 7", "Expected `str`, got `int` - at `address`"),
        ('address = "a"\nretries = "3"', "Expected `int`, got `str` - at `retries`"),
        ('address = "a"\nretries = 3.5', "Expected `int`, got `float` - at `retries`"),
        ('address = "a"\ntoken = "hunter2-correct-horse"', "not a reference: write BACKEND://PATH"),
        ('address = "a"\ntoken = "hunter2-correct-horse"', "e.g. file:///run/secrets/NAME"),
        ('address = "a"\ntimeout = "soon"', "timeout: a duration is written like"),
    ],
)
def test_faulty_settings(site: Path, tmp_path: Path, line: str, told: str) -> None:
    """Settings are checked by the type's own struct; file, table and key are named, no value is."""
    bring(site)
    file = tmp_path / "sentra-kms.toml"
    file.write_text(f'[prod.backends.one]\ntype = "acme"\n{line}\n')
    message = refusal(ConfigurationError, lambda: sentra_kms.load(file, "prod"))
    assert f"{file}: [prod.backends.one]: " in message
    assert told in message
    assert SECRET not in message


def test_settings_whose_type_cannot_be(site: Path) -> None:
    """A field whose type no value can have is its author's fault, and told as that."""
    impossible = "Annotated[str | None, msgspec.Meta(pattern='x')] = None"
    registration = "from typing import Annotated\nimport msgspec\n" + REGISTRATION.replace(
        "retries: int = 3", f"retries: {impossible}"
    )
    bring(site, registration=registration)
    message = refusal(PluginError, lambda: sentra_kms.load(configured(), "dev"))
    assert "[dev.backends." in message
    assert "AcmeSettings declares a field whose type cannot be" in message


CHECKS = """
    def __post_init__(self) -> None:
        raise {error}
"""


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        ("ValueError('give an https address')", ConfigurationError, ": give an https address"),
        (
            "__import__('sentra_kms').ConfigurationError('give an https address')",
            ConfigurationError,
            ": give an https address",
        ),
        ("KeyError(self.address)", PluginError, "AcmeSettings raised KeyError when they were read"),
        (f"OSError('{SECRET}')", PluginError, "AcmeSettings raised OSError when they were read"),
    ],
)
@pytest.mark.parametrize("written", [True, False])
def test_settings_that_check_themselves(
    site: Path, error: str, kind: type[KMSError], told: str, *, written: bool
) -> None:
    """What settings refuse is told with the place; what else they raise is their author's fault."""
    registration = REGISTRATION.replace("address: str", 'address: str = ""')
    registration = registration.replace(
        "    retries: int = 3\n", f"    retries: int = 3\n{CHECKS.format(error=error)}"
    )
    bring(site, registration=registration)
    table = {"type": "acme", **({"address": SECRET} if written else {})}
    source = {"dev": {"development": True, "backends": {"acme": table}}}
    message = refusal(kind, lambda: sentra_kms.load(source, "dev"))
    assert "[dev.backends.acme]" in message
    assert told in message
    assert SECRET not in message


def test_field_of_a_plugins_own_type(site: Path) -> None:
    """What such a type raises when it is made is not let through, nor the value."""
    registration = "class Odd(str):\n    def __new__(cls, text):\n        raise KeyError(text)\n"
    registration += REGISTRATION.replace("retries: int = 3", "odd: Odd | None = None")
    bring(site, registration=registration)
    message = refusal(PluginError, lambda: sentra_kms.load(configured(odd=SECRET), "dev"))
    assert "AcmeSettings raised KeyError when they were read" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "kind", ["Literal['a', 'b']", "Enum('Mode', {'A': 'a', 'B': 'b'})", "Literal[1, 2, 'a']"]
)
@pytest.mark.parametrize("value", [SECRET, f"`{SECRET}' - at `{SECRET}", f"{SECRET}\n'"])
def test_choice_that_is_none_is_not_quoted(site: Path, kind: str, value: str) -> None:
    """A value that is not one of those allowed may be a misplaced secret."""
    registration = "from enum import Enum\nfrom typing import Literal\nMode = " + kind
    registration += REGISTRATION.replace("retries: int = 3", "mode: Mode | None = None")
    bring(site, registration=registration)
    message = refusal(ConfigurationError, lambda: sentra_kms.load(configured(mode=value), "dev"))
    assert message.endswith("[dev.backends.acme]: Invalid enum value - at `mode`")


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ("", "most_tries"),
        (', rename="kebab"', "most-tries"),
        (', rename="camel"', "mostTries"),
    ],
)
def test_settings_under_other_names(site: Path, options: str, written: str) -> None:
    """Settings may be written otherwise than they are called in the code: those names count."""
    registration = REGISTRATION.replace("frozen=True", "frozen=True" + options)
    bring(
        site,
        registration=registration.replace("retries", "most_tries"),
        backend=BACKEND.replace("return Secrets()", "seen.append(settings)\n    return Secrets()")
        + "\nseen = []\n",
    )
    sentra_kms.load(configured("acme", **{written: 7}), "dev").close()
    assert sys.modules["acme_backend"].seen[0].most_tries == 7
    message = refusal(ConfigurationError, lambda: sentra_kms.load(configured(mostries=7), "dev"))
    assert f"did you mean '{written}'?" in message


def test_settings_reach_create(site: Path) -> None:
    """The mended settings are accepted, and `create` gets them."""
    bring(
        site,
        backend=BACKEND.replace("return Secrets()", "seen.append(settings)\n    return Secrets()")
        + "\nseen = []\n",
    )
    sentra_kms.load(configured(token="env://TOKEN"), "dev").close()
    (settings,) = sys.modules["acme_backend"].seen
    assert (settings.address, settings.token, settings.retries) == ("here", "env://TOKEN", 3)


@pytest.mark.parametrize("development", [True, False])
def test_what_the_host_lends(site: Path, tmp_path: Path, *, development: bool) -> None:
    """`create` gets its backend's name, environment, clock, logger, paths and secrets."""
    bring(
        site,
        backend=BACKEND.replace("return Secrets()", "seen.append(host)\n    return Secrets()")
        + "\nseen = []\n",
    )
    file = tmp_path / "sentra-kms.toml"
    file.write_text(
        f'[eu]\ndevelopment = {str(development).lower()}\n[eu.backends.acme-eu]\ntype = "acme"\n'
        f'address = "a"\ntoken = "file://{tmp_path}/token"\n'
        '[eu.backends.acme-us]\ntype = "acme"\naddress = "b"\n'
    )
    token = tmp_path / "token"
    token.touch(0o600)
    with sentra_kms.load(file, "eu"):
        host, other = sys.modules["acme_backend"].seen
        assert (host.name, other.name) == ("acme-eu", "acme-us")
        assert (host.environment, host.development) == ("eu", development)
        assert abs(host.clock() - time.time()) < 3600
        assert host.logger.name == "sentra_kms.backends.acme-eu"
        assert host.resolve("keys") == str(tmp_path / "keys")
        assert host.state == {}
        assert host.state is not other.state
        for value in (b"first", b"rotated"):
            token.write_bytes(value)
            assert host.secret(Reference(f"file://{token}")).reveal() == value


def test_only_named_types_are_imported(site: Path) -> None:
    """Of the installed types only those that a configuration names are imported."""
    bring(site)
    install(site, "other-kms", backends={"other": "other_register"}, modules={"other_register": ""})
    sentra_kms.load(configured(), "dev").close()
    assert "acme_register" in sys.modules
    assert "other_register" not in sys.modules


def test_built_in_types_need_no_scan(tmp_path: Path) -> None:
    """With built-in types only, entry points are not looked at: their module is not imported."""
    code = """
import sys
sys.modules.pop("importlib.metadata", None)
import sentra_kms
sentra_kms.load(
    {"dev": {"development": True, "backends": {"memory": {"type": "memory"}},
             "keys": {"wrap_with": ["memory:k"], "store": "memory"}}}, "dev").keys.create("acme")
print("importlib.metadata" in sys.modules)
try:
    sentra_kms.load({"dev": {"backends": {"one": {"type": "nowhere"}}}}, "dev")
except sentra_kms.ConfigurationError:
    print("importlib.metadata" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


COMMANDS = """

@hookimpl
def register_commands(cli) -> None:
    import click

    @click.group("acme")
    def acme() -> None: ...

    cli.add_command(acme)
"""


def test_register_commands(site: Path) -> None:
    """A registering module may add commands; click is imported only when it does."""
    click = pytest.importorskip("click")
    bring(site, registration=REGISTRATION + COMMANDS)
    module = registered_module("acme")
    root = click.Group("sentra-kms")
    module.register_commands(root)
    assert list(root.commands) == ["acme"]
    assert find_type("acme").kind.summary == "Acme"
