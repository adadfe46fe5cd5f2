"""An architecture is data: complete, unambiguous, and known by name to its own file alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bench
import ternops
from ternops.decoder import Config
from ternops.decoder.architectures import (
    ARCHITECTURES,
    DELTA_LINEAR,
    LINEAR,
    NORMS,
    VECTORS,
    find_gguf,
    find_hugging_face,
)

FORMS = [
    (each, form) for each in ARCHITECTURES.values() for form in (*each.hugging_face, *each.gguf)
]


@pytest.mark.parametrize(("architecture", "form"), FORMS)
def test_a_form_has_a_name_for_everything(architecture, form):
    """All matrices and norms, no two of them under one name."""
    hybrid = bool(architecture.delta_norms)
    assert form.hybrid == hybrid
    linear = LINEAR | DELTA_LINEAR if hybrid else LINEAR
    norms = {*architecture.norms, *architecture.delta_norms}
    vectors = VECTORS if hybrid else {}
    names = [form.matrix(3, name) for name in linear]
    names += [form.vector(3, name) for name in vectors]
    for name in norms:
        found = form.norm(3, name)
        names += [found] if isinstance(found, str) else found
    assert len(set(names)) == len(names) >= len(linear) + len(norms) + len(vectors)
    assert not set(names) & {form.embedding, form.head, form.final_norm}
    assert all(name.startswith(form.layer.format(3)) for name in names)


def test_every_form_is_found():
    """By what its files say."""
    for each in ARCHITECTURES.values():
        for form in each.hugging_face:
            assert find_hugging_face({"architectures": [form.program]}) == (each, form)
        for form in each.gguf:
            assert find_gguf({"general.architecture": form.name}) == (each, form)


def test_sizes_of_all_norms():
    """Weights, and the elements of a token that they norm."""
    sizes = {"hidden": 24, "ffn": 70, "heads": 6, "kv_heads": 2, "head_dim": 10}
    for name, weights, elements in (
        ("llama", 24 + 24, 24 + 24),
        ("bitnet", 24 + 24 + 60 + 70, 24 + 24 + 60 + 70),
        ("qwen3", 24 + 24 + 10 + 10, 24 + 24 + 60 + 20),
    ):
        config = Config(**sizes, layers=1, vocabulary=9, context=9, architecture=name)
        assert sum(config.norm_sizes().values()) == weights
        assert config.normed_elements == elements
        assert set(config.norm_sizes()) <= set(NORMS)


def test_an_unknown_architecture_is_refused():
    sizes = {"hidden": 2, "ffn": 2, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 2}
    with pytest.raises(ValueError, match=r"^config: architecture is 'x', expected bitnet or llama"):
        Config(**sizes, vocabulary=2, context=2, architecture="x")


@pytest.mark.parametrize("package", [ternops, bench])
def test_no_name_of_an_architecture_stands_in_a_comparison(package):
    """What differs is a field of its record."""
    names = {each.name for each in ARCHITECTURES.values()}
    names |= {form.name if hasattr(form, "name") else form.program for _, form in FORMS}
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not words & names, f"{path}:{node.lineno}"
