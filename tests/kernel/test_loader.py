"""Which probes are found not to compile, and how soon, with a stand-in for the compiler. tests/kernel/test_tracing.py has it with the real one."""

import itertools
from collections.abc import Callable

import pytest

from infrasight.errors import KernelError
from infrasight.kernel import loader
from infrasight.kernel.compiler import Module
from infrasight.schema import PROBES
from infrasight.schema.kinds import ALWAYS

OTHERS = [probe for probe in PROBES if probe != ALWAYS]
Compiling = Callable[..., list[set[str]]]


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Compiling:
    """Has the compiler refuse whatever holds all probes of one of these sets; gives what is compiled from then on."""

    def set_up(*refused: set[str]) -> list[set[str]]:
        seen: list[set[str]] = []

        def compile(text: str, *_: object) -> Module:
            seen.append(set(text.split()))
            for each in refused:
                if each <= seen[-1]:
                    raise KernelError(f"because of {' and '.join(sorted(each))}")
            return Module({}, {})

        monkeypatch.setattr(loader, "program", lambda probes: (" ".join(probes), []))
        monkeypatch.setattr(loader, "compiled", compile)
        monkeypatch.setattr(loader, "compile_module", compile)
        return seen

    return set_up


def test_all_compile(compiling: Compiling) -> None:
    seen = compiling()
    assert loader._compiled(list(PROBES), []) == (Module({}, {}), [], {})
    assert seen == [set(PROBES)]


@pytest.mark.parametrize("probe", OTHERS)
def test_one_that_does_not_compile(compiling: Compiling, probe: str) -> None:
    seen = compiling({probe})
    assert loader._compiled(list(PROBES), [])[2] == {probe: f"because of {probe}"}
    assert seen[-1] == set(PROBES) - {probe}
    assert len(seen) <= 3 + 2 * len(PROBES).bit_length()


@pytest.mark.parametrize("count", [2, 3, len(OTHERS) - 1, len(OTHERS)])
def test_several_that_do_not_compile(compiling: Compiling, count: int) -> None:
    for wrong in itertools.islice(itertools.combinations(OTHERS, count), 500):
        seen = compiling(*({probe} for probe in wrong))
        assert loader._compiled(list(PROBES), [])[2] == {probe: f"because of {probe}" for probe in wrong}
        assert seen[-1] == set(PROBES) - set(wrong)
        assert len(seen) <= 2 + 2 * len(PROBES)


def test_what_all_need_does_not_compile(compiling: Compiling) -> None:
    """That is seen at once."""
    seen = compiling({ALWAYS})
    with pytest.raises(KernelError, match=f"because of {ALWAYS}"):
        loader._compiled(list(PROBES), [])
    assert seen == [set(PROBES), {ALWAYS}]


@pytest.mark.parametrize("other", OTHERS[1:])
def test_two_that_do_not_go_together(compiling: Compiling, other: str) -> None:
    """Neither is to blame."""
    compiling({OTHERS[0], other})
    with pytest.raises(KernelError, match="because of"):
        loader._compiled(list(PROBES), [])


def test_the_only_one_asked_for(compiling: Compiling) -> None:
    compiling({"open"})
    with pytest.raises(KernelError, match="because of open"):
        loader._compiled(["open"], [])
