"""What the suite says when something is lacking: the harness's abilities, and pytest itself."""

# ruff: noqa: D102 - what is overridden says it

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import sentra_kms
from sentra_kms import KMSError, SecretNotFound, ServiceUnavailable, Throttled, Timeout
from sentra_kms.testing import BackendConformance, BackendHarness, Bench
from sentra_kms.testing.base import able, must, need, together
from sentra_kms.testing.declared import check_declared
from sentra_kms.testing.skips import summary
from sentra_kms.testing.user import _all_of

ROOT = Path(sentra_kms.__file__).parents[1]
WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = None
try:
    import sentra_kms.testing
except ImportError as error:
    print(error)
"""
WRONG = """
from sentra_kms.testing import BackendHarness, EndToEndConformance


class WrongHarness(BackendHarness):
    type = "memory"
    absent = {"throtle": "memory takes every request"}

    def kek(self):
        return "tenants"


class TestWrong(EndToEndConformance):
    harness = WrongHarness
"""
_ARGUMENTS = {
    "disable_key": ("tenants",),
    "schedule_key": ("tenants",),
    "delete_key": ("tenants",),
    "rotate_key": ("tenants",),
    "answer_unwrap": (b"x",),
    "secret_version": ("env://X",),
    "change_secret": ("env://X", b"x"),
    "delete_secret": ("env://X",),
    "ring_history": ("acme",),
}


def _run(place: Path, module: str) -> str:
    """Run a module of checks; return what pytest said."""
    (place / "test_wrong.py").write_text(module)
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=",
            "--rootdir", str(place), str(place / "test_wrong.py"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip


class Bare(BackendHarness):
    type = "memory"


class Able(Bare):
    def kek(self) -> str:
        return "tenants"


@pytest.mark.parametrize(
    "ability",
    [
        *_ARGUMENTS,
        *("kek", "second_kek", "secret", "binary_secret", "field_secret"),
        *("lose_answer", "deny", "throttle", "stall", "cut", "answer_unknown", "requests"),
    ],
)
def test_lacking_ability_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ability: str
) -> None:
    """A check that needs an ability which the harness lacks is skipped, and the ability named."""
    arguments: list[object] = list(_ARGUMENTS.get(ability, ()))
    with pytest.raises(pytest.skip.Exception, match=rf"lacks the ability {ability}\(\)"):
        able(getattr(Bare(tmp_path, monkeypatch), ability), *arguments)


class Declared(Bare):
    absent: ClassVar[Mapping[str, str]] = {
        "throttle": "memory takes every request",
        "share": """no other process
        can reach it""",
    }


def test_declared_absence_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check of what a service has no such thing as is skipped, for the reason that was given."""
    harness = Declared(tmp_path, monkeypatch)
    check_declared(Declared)
    told = ""
    for ability in (harness.throttle, harness.share):
        with pytest.raises(pytest.skip.Exception) as skipped:
            able(ability)
        told = skipped.value.msg or ""
        assert told.startswith(f"declared absent: {ability.__name__}(), ")
        assert summary([("x.py::TestX::test_x", f"Skipped: {told}")]) == [f"TestX: {told}: test_x"]
    assert told == "declared absent: share(), no other process can reach it"
    with pytest.raises(pytest.skip.Exception, match="lacks the ability stall"):
        able(harness.stall)


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        ({"kek": "none"}, "there is no such ability: they are answer_unknown, .*, throttle"),
        ({"throtle": "none"}, "there is no such ability"),
        ({"throttle": " "}, "gives no reason"),
        ({"throttle": None}, "gives no reason"),
        ({"throttle"}, "without reasons: write .*throttle.* takes every request"),
        ({"deny": "nobody can be denied"}, "and yet has it"),
        ({"share": "a file"}, "and yet has it"),
    ],
)
def test_wrong_declarations_fail(absent: Any, told: str) -> None:
    """What is needed, misspelt, there or without a reason cannot be declared absent."""

    class Wrong(Bare):
        def deny(self) -> None:
            raise AssertionError

        def share(self) -> None:
            raise AssertionError

    Wrong.absent = absent
    with pytest.raises(pytest.fail.Exception, match=told):
        check_declared(Wrong)


def test_wrong_declaration_fails_every_check(tmp_path: Path) -> None:
    """A harness with a wrong declaration proves nothing: each of its checks fails."""
    told = _run(tmp_path, WRONG)
    assert "passed" not in told
    assert "WrongHarness declares 'throtle' absent, and there is no such ability" in told


def test_backend_that_cannot_be_used_is_told_in_a_line(tmp_path: Path) -> None:
    """Where a backend cannot even be built, each check says why, without a traceback."""
    wrong = WRONG.replace("throtle", "throttle").replace('"memory"', '"not-installed"')
    told = _run(tmp_path, wrong)
    assert "cannot be used at all: " in told
    assert "no backend type 'not-installed' is installed" in told
    assert "Traceback" not in told
    assert "config.py:" not in told


def test_ability_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ability that the harness has is used."""
    harness = Able(tmp_path, monkeypatch)
    assert able(harness.kek) == must(harness.kek) == "tenants"


def test_lacking_what_the_backend_does_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that wraps keys under a harness without a KEK fails, and is not skipped."""
    with pytest.raises(pytest.fail.Exception, match=r"harness with kek\(\)"):
        must(Bare(tmp_path, monkeypatch).kek)


def test_lacking_capability_is_named() -> None:
    """A check of what the backend does not do is skipped, and the operation named."""
    bench = Bench("memory", {"type": "memory"})
    need(bench, "wrap_key")
    with pytest.raises(pytest.skip.Exception, match=r"'memory' has no part .* fetch_secret"):
        need(bench, "fetch_secret")
    bench.close()


def test_together_gives_ends_in_order() -> None:
    """What runs at once is told apart: its answer, or what it raised."""

    def work(number: int) -> int:
        if number == 1:
            raise KeyError
        return number

    first, second, third = together(3, work)
    assert (first, third) == (0, 2)
    assert isinstance(second, KeyError)


def test_no_check_hides_another() -> None:
    """Joined in one class, no check and no fixture takes the place of another's of that name."""
    names = [
        name
        for kind in BackendConformance.__mro__
        for name in vars(kind)
        if kind.__module__.startswith("sentra_kms.testing.") and not name.startswith("_")
    ]
    assert len(names) > 60
    assert [name for name in names if names.count(name) > 1] == []


def test_without_pytest() -> None:
    """Without pytest, importing the suite says what to install."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTEST], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 'pip install "sentra-kms[testing]"' in done.stdout


@pytest.mark.parametrize("order", [1, -1])
def test_batch_may_run_out_of_time_in_the_middle(order: int) -> None:
    """In an outage the last of a batch may end as `Timeout`, which is an outage, too."""
    ends: list[KMSError] = [ServiceUnavailable("refused"), Timeout("no time is left")]
    with pytest.raises(ServiceUnavailable) as caught:
        _all_of(ends[::order])
    assert type(caught.value) is ServiceUnavailable


@pytest.mark.parametrize(
    "ends",
    [
        [b"found", ServiceUnavailable("refused")],
        [ServiceUnavailable("refused"), SecretNotFound("none")],
        [Throttled("too many"), Timeout("no time is left")],
    ],
)
def test_batch_that_ends_in_several_ways(ends: list[object]) -> None:
    """Where all requests of a batch are alike, they end alike."""
    with pytest.raises(AssertionError, match="several ways"):
        _all_of(ends)
