"""TernaryLinear beside `ternops.matmul`, and what PyTorch asks of a layer."""

from __future__ import annotations

import copy
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ternops

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
from ternops.torch import TernaryLinear  # noqa: E402
from ternops.torch import operator as operators  # noqa: E402

pytestmark = pytest.mark.peers

#: Parts of a result that a dtype rounds away.
ROUNDED = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def matrix(rows=40, columns=96, seed=0, encoding="auto", **options):
    weights = np.random.default_rng(seed).standard_normal((rows, columns), np.float32)
    return ternops.quantize(weights, encoding, **options)


def tensor(*shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


@settings(max_examples=60, deadline=None)
@given(
    batch=st.lists(st.integers(0, 5), max_size=3),
    rows=st.integers(0, 70),
    columns=st.integers(1, 300),
    dtype=st.sampled_from(list(ROUNDED)),
    has_bias=st.booleans(),
    needs_grad=st.booleans(),
)
def test_any_batch_and_dtype_is_matmul(batch, rows, columns, dtype, has_bias, needs_grad):
    """Bit for bit in float32; the others are rounded once, the bias is added in their dtype."""
    W = matrix(rows, columns, columns)
    bias = tensor(rows, seed=rows) if has_bias else None
    x = tensor(*batch, columns).to(dtype).requires_grad_(needs_grad)
    y = TernaryLinear(W, bias)(x).detach()
    expected = torch.from_numpy(x.detach().float().numpy() @ W.T).to(dtype)
    if has_bias:
        expected = expected + bias.to(dtype)
    assert y.dtype == dtype
    assert torch.equal(y, expected)


@pytest.mark.parametrize("encoding", ["two_bit", "base3", "tl1", "tl2", "one_bit"])
@pytest.mark.parametrize("group", [None, "row"])
def test_any_encoding(encoding, group):
    W = matrix(encoding=encoding, group=group)
    x = tensor(3, 96)
    assert torch.equal(TernaryLinear(W)(x), torch.from_numpy(x.numpy() @ W.T))


@pytest.mark.parametrize("changed", ["strided", "offset", "expanded", "negative", "transposed"])
def test_a_view_is_what_it_shows(changed):
    x = {
        "strided": lambda: tensor(6, 2 * 96)[::2, ::2],
        "offset": lambda: tensor(4 * 96 + 1)[1:].view(4, 96),
        "expanded": lambda: tensor(1, 96).expand(4, 96),
        "negative": lambda: torch.complex(tensor(4, 96), tensor(4, 96, seed=2)).conj().imag,
        "transposed": lambda: tensor(96, 5).T,
    }[changed]()
    W = matrix()
    expected = torch.from_numpy(np.ascontiguousarray(x.resolve_neg().numpy()) @ W.T)
    assert torch.equal(TernaryLinear(W)(x), expected)


def test_a_contiguous_float32_tensor_is_read_where_it_lies(monkeypatch):
    seen = []
    run = operators.multiply_at
    monkeypatch.setattr(operators, "multiply_at", lambda *a: (seen.append(a), run(*a)))
    x = tensor(2, 3, 96)
    y = TernaryLinear(matrix())(x)
    ((_, _, source, target, *_),) = seen
    assert (source, target) == (x.data_ptr(), y.data_ptr())


def test_no_more_threads_than_torch_has(monkeypatch):
    seen = []
    monkeypatch.setattr(operators, "multiply_at", lambda *a: seen.append(a[4]))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        TernaryLinear(matrix())(tensor(1, 96))
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_small_rows_have_the_floor_of_training():
    """max|x| counts as 1e-5 at least: what is far below that is 0, which `ternops.matmul`, whose
    floor is next to nothing, does not round so."""
    layer, x = TernaryLinear(matrix()), tensor(1, 96)
    assert not layer(x * 1e-9).any()
    assert layer(x).any()
    assert ((x * 1e-9).numpy() @ layer.matrix.T).any()


def test_what_is_not_finite_is_nan_in_its_row_alone():
    x = tensor(3, 96)
    x[1, 7] = torch.inf
    assert TernaryLinear(matrix())(x).isnan().all(dim=1).tolist() == [False, True, False]


def test_the_gradient_of_the_input_is_grad_at_w():
    """Bit for bit `ternops`' own product, which rounds grad to int8: at most half a step for each
    weight of a column."""
    W = matrix()
    x, grad = tensor(2, 5, 96).requires_grad_(), tensor(2, 5, 40, seed=3)
    TernaryLinear(W, tensor(40))(x).backward(grad)
    assert torch.equal(x.grad, torch.from_numpy(grad.numpy() @ W))
    exact = grad.double() @ torch.from_numpy(W.to_dense()).double()
    column = np.abs(W.to_dense()).sum(axis=0).max()
    bound = grad.abs().amax(dim=-1, keepdim=True) / 254 * float(column) * 1.001
    assert ((x.grad - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", list(ROUNDED))
def test_gradients_have_the_dtype_of_the_input(dtype):
    x = tensor(3, 96).to(dtype).requires_grad_()
    TernaryLinear(matrix())(x).sum().backward()
    assert x.grad.dtype == dtype
    assert x.grad.any()


def test_a_second_derivative_is_refused():
    """There is no formula for it, and none that is silently left out."""
    x = tensor(3, 96).requires_grad_()
    grad = tensor(3, 40).requires_grad_()
    (first,) = torch.autograd.grad(TernaryLinear(matrix())(x), x, grad, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        first.sum().backward()


def test_the_operator_is_as_torch_wants_it():
    """Its schema, its fake kernel, its gradient and tracing (torch.library.opcheck)."""
    layer = TernaryLinear(matrix())
    for x in (tensor(3, 96), tensor(2, 3, 96).requires_grad_(), tensor(3, 96).bfloat16()):
        torch.library.opcheck(
            torch.ops.ternops.ternary_linear.default, (x, layer.key, layer.out_features)
        )


def test_a_compiled_model_has_no_break_and_the_same_results():
    layers = [TernaryLinear(matrix(64, 96), tensor(64)), TernaryLinear(matrix(40, 64, 3))]
    model = torch.nn.Sequential(layers[0], torch.nn.SiLU(), layers[1])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for shape in ((4, 96), (7, 96), (2, 3, 96)):
        x = tensor(*shape)
        assert torch.equal(compiled(x), model(x))
    x, again = tensor(4, 96).requires_grad_(), tensor(4, 96).requires_grad_()
    compiled(x).sum().backward()
    model(again).sum().backward()
    assert torch.equal(x.grad, again.grad)


def test_a_compiled_layer_follows_weights_that_are_loaded():
    layer, other = TernaryLinear(matrix(seed=5)), TernaryLinear(matrix(seed=6))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = tensor(4, 96)
    before = compiled(x)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(compiled(x), other(x))
    assert not torch.equal(before, other(x))


@pytest.mark.parametrize("rows", [40, 41, 3])
@pytest.mark.parametrize("group", [None, "row", 32])
@pytest.mark.parametrize("has_bias", [False, True])
def test_state_dict_both_ways(rows, group, has_bias):
    """Packed as transformers packs, whatever the encoding of either layer."""
    bias = tensor(rows) if has_bias else None
    method = None if group is None else "mse"
    W = matrix(rows, 96, encoding="two_bit", group=group, method=method, levels=3)
    layer = TernaryLinear(W, bias)
    state = layer.state_dict()
    assert set(state) == {"weight", "weight_scale", *(["bias"] if has_bias else [])}
    assert state["weight"].dtype == torch.uint8
    assert state["weight"].shape == (-(-rows // 4), 96)
    encoding = "two_bit" if group == 32 else "base3"
    other = TernaryLinear(
        ternops.pack(np.zeros((rows, 96), np.int8), 1.0, encoding),
        None if bias is None else bias * 0,
    )
    other.load_state_dict(state)
    assert other.matrix.encoding == encoding
    x = tensor(5, 96)
    assert np.array_equal(other.matrix.to_dense(), W.to_dense())
    assert torch.allclose(other(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(weight=s["weight"][:3]), r"weight: uint8 \(3, 96\), expected packed"),
        (lambda s: s.update(weight=s["weight"].float()), "weight: float32"),
        (lambda s: s["weight"].fill_(255), "weight holds the code 3"),
        (lambda s: s["weight_scale"].fill_(torch.nan), "scale: not finite"),
        (lambda s: s.update(weight_scale=torch.ones(7)), r"scale: shape \(7,\)"),
        (lambda s: s.pop("weight_scale"), "Missing key.*weight_scale"),
        (lambda s: s.update(other=torch.ones(7)), "Unexpected key.*other"),
    ],
)
def test_a_bad_state_dict_is_told_and_changes_nothing(change, message):
    layer, x = TernaryLinear(matrix()), tensor(2, 96)
    before, state = layer(x), TernaryLinear(matrix(seed=9)).state_dict()
    change(state)
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(state)
    if "other" not in state:
        assert torch.equal(layer(x), before)


def test_copies_and_files():
    """A deep copy shares the bytes; a pickled module has its own number where it is loaded."""
    layer, x = TernaryLinear(matrix(), tensor(40)), tensor(2, 96)
    copied = copy.deepcopy(layer)
    assert copied.matrix is layer.matrix
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(layer), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for each in (copied, loaded):
        assert torch.equal(each(x), layer(x))
        with_grad = x.clone().requires_grad_()
        assert torch.equal(each(with_grad).detach(), layer(x))
    assert loaded[0].key != layer.key


def test_moving_to_another_dtype_keeps_the_weights():
    layer, x = TernaryLinear(matrix(), tensor(40)), tensor(2, 96)
    expected = layer(x.bfloat16())
    assert torch.equal(layer.bfloat16()(x.bfloat16()), expected)


def test_defaults_of_torch_do_not_matter():
    layer, x = TernaryLinear(matrix()), tensor(2, 96)
    expected = layer(x)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert torch.equal(layer(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (lambda: tensor(2, 96).to("meta"), TypeError, "x: device meta, expected a CPU tensor"),
        (lambda: tensor(2, 96).cfloat(), TypeError, "x: dtype complex64, expected float32"),
        (lambda: tensor(2, 96).double(), TypeError, "x: dtype float64, expected float32"),
        (lambda: tensor(2, 96).to(torch.int8), TypeError, "x: dtype int8, expected float32"),
        (lambda: tensor(2, 96).to_sparse(), TypeError, "x: layout torch.sparse_coo, expected"),
        (lambda: tensor(2, 95), ValueError, r"x: shape \(2, 95\), expected \(\.\.\., 96\)"),
        (lambda: torch.tensor(1.0), ValueError, r"x: shape \(\), expected \(\.\.\., 96\)"),
    ],
)
def test_bad_input_is_one_line(x, error, message):
    with pytest.raises(error, match=message) as caught:
        TernaryLinear(matrix())(x())
    assert "\n" not in str(caught.value)


def test_bad_matrices_are_one_line():
    layer = TernaryLinear(matrix(), tensor(40))
    with pytest.raises(TypeError, match="requires_grad: True, expected False: the weights"):
        layer.requires_grad_()
    assert layer.requires_grad_(False) is layer
    assert not layer.bias.requires_grad
    with pytest.raises(TypeError, match="matrix: ndarray, expected a TernaryMatrix"):
        TernaryLinear(np.zeros((2, 2), np.int8))
    with pytest.raises(ValueError, match="matrix: a transpose"):
        TernaryLinear(matrix().T)
    with pytest.raises(ValueError, match=r"matrix: levels \(-8, .*expected -1, 0 and 1"):
        TernaryLinear(matrix(encoding="nibble"))
    with pytest.raises(ValueError, match=r"bias: shape \(7,\), expected \(40,\)"):
        TernaryLinear(matrix(), torch.zeros(7))


def test_a_graph_without_its_layer_is_told():
    layer = TernaryLinear(matrix())
    key = layer.key
    del layer
    with pytest.raises(ValueError, match=f"key={key}: no TernaryLinear"):
        torch.ops.ternops.ternary_linear(tensor(2, 96), key, 40)


def test_torch_is_imported_by_its_package_alone():
    """`import ternops` and products need no torch."""
    code = "import sys, ternops, ternops.matrix, ternops.product; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
