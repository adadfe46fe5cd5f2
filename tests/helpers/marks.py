"""What of a test's parameters is left to the whole suite."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable
from typing import Any

import pytest

from bench.suites.lossless.proof import tiers
from ternops.encodings import PANELS
from ternops.encodings.panels import GROUPS
from tests.helpers import cases

#: What `make test` has of every tier's kernels as text: this process's tier, "generic", and one
#: between.
FEW = tuple(tiers(few=True))
#: What is left to `make test-tiers` of tests of several tiers' kernels at once, which they share.
OF_TIERS = (pytest.mark.slow, pytest.mark.tiers, pytest.mark.xdist_group("few tiers"))


def apart(names: Iterable[str], what: str, few: Iterable[str] = FEW) -> list[Any]:
    """Slow parameters that need not be tested in one process (`pytest -n`), as those of a file are.

    Tests that give their parts the same names share a process for each: what one of them has
    compiled, the others find.
    few: those of `make test`; the others are left to `make test-tiers`.
    """
    return [
        pytest.param(name, marks=[
            pytest.mark.slow, pytest.mark.xdist_group(f"{what} {name}"),
            *([] if name in few else [pytest.mark.tiers]),
        ])
        for name in names
    ]  # fmt: skip


def with_groups(encodings: Iterable[str], groups: Iterable[int] = GROUPS) -> list[Any]:
    """Each encoding of panels with each number of columns that may share a scale.

    What no `warmup` has compiled is slow, and all but cases.COMPILED_GROUPS left to
    `make test-tiers`.
    """
    return [
        pytest.param(name, group, marks=[
            *([] if group in PANELS[name].usual_groups else [pytest.mark.slow]),
            *([] if group in cases.groups_of(name) else [pytest.mark.tiers]),
        ])
        for name, group in itertools.product(encodings, groups)
    ]  # fmt: skip


def crossed(
    rows: Iterable[str], columns: Iterable[str], whole: tuple[Container[str], Container[str]],
    quick: tuple[Container[str], Container[str]],
) -> list[Any]:  # fmt: skip
    """Pairs of two parameters, of which `make test` has some rows and some columns whole, so that
    each value is there.

    whole: those rows and columns; the other pairs are left to `make test-tiers`. quick: the pairs
    of these are not slow.
    """
    return [
        pytest.param(row, column, marks=[
            *([] if row in quick[0] and column in quick[1] else [pytest.mark.slow]),
            *([] if row in whole[0] or column in whole[1] else [pytest.mark.tiers]),
        ])
        for row, column in itertools.product(rows, columns)
    ]  # fmt: skip


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """The values, all but a few of them marked as slow."""
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow)
            for each in values]  # fmt: skip
