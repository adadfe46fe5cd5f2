"""BitLinear beside its papers' formulas in float64, whose gradients autograd finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ternops
from ternops.absmean import sign_mean

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
from torch import nn  # noqa: E402

from ternops.torch import BitLinear  # noqa: E402

pytestmark = pytest.mark.peers

ROUNDINGS = ("absmean", "sign", "seq")
#: Of gradients and results, in parts of the largest.
ERROR = 1e-6
#: Activations and weights over their steps are kept this far from where rounding changes, which
#: float32 may see otherwise than float64.
DISTANCE = 1e-4


#: Inputs that share a scale, and lambda.
GROUP, PARTS = 32, (0.0, 0.3)


def straight_through(exact, rounded):
    return exact + (rounded - exact).detach()


def rounded_weights(w, alpha, name, group=None):
    """BitNet b1.58 (arXiv 2402.17764, section 2), BitNet (2310.11453, section 2.1), and SEQ of
    three levels (ParetoQ, 2502.02631, section 3)."""
    if group:
        parts = w.unflatten(1, (-1, group))
        s = parts.abs().mean(2, keepdim=True).half().double()
        return straight_through(w, ((parts / s).round().clamp(-1, 1) * s).flatten(1))
    if name == "absmean":
        s = w.abs().mean()
        return straight_through(w, (w / s).round().clamp(-1, 1) * s)
    if name == "sign":
        signs = torch.where(w > w.mean(), 1.0, -1.0).double()
        return straight_through(w, signs * w.abs().mean())
    # The clipping is part of the graph, and the division by alpha; only rounding is passed through.
    ratio = (w / alpha).clamp(-0.99, 0.99)
    constant = torch.where((w / alpha).abs() <= 0.99, ratio * 1.5, w.sign())
    return alpha * straight_through(constant, (ratio * 1.5).round()) / 1.5


def formula(x, w, alpha, gain, name, group=None, part=1.0):
    """part: lambda, of the 1.58-bit fine-tuning recipe."""
    if gain is not None:
        x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain
    groups = x.unflatten(-1, (-1, group or x.shape[-1]))
    step = groups.abs().amax(-1, keepdim=True) / 127
    levels = straight_through(x, ((groups / step).round() * step).flatten(-2))
    rounded = rounded_weights(w, alpha, name, group)
    return (x + part * (levels - x)) @ (w + part * (rounded - w)).T


def is_clear(values, points):
    """Whether no value is near one of the points, modulo 1."""
    return all(((values - p + 0.5) % 1 - 0.5).abs().min() > DISTANCE for p in points)


def case(name, has_norm, seed):
    """Random operands in float64, none of them where rounding is not clear."""
    while True:
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(2, 3, 24, generator=random).double()
        w = torch.randn(10, 24, generator=random).double()
        alpha = (torch.rand(10, 1, generator=random) + 1.5).double()
        gain = (torch.rand(24, generator=random) + 0.5).double() if has_norm else None
        y = x if gain is None else x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain
        whole = y / y.abs().amax(-1, keepdim=True) * 127
        clear = is_clear(whole[whole.abs() < 126.9], [0.5]) and is_clear(w / w.abs().mean(), [0.5])
        if clear and is_clear(w / alpha * 1.5, [0.5]) and is_clear(w / alpha, [0.99]):
            return x, w, alpha, gain
        seed += 1000


def case_of_groups(seed):
    """The same with groups of weights, 64 inputs and no norm."""
    while True:
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(2, 3, 64, generator=random).double()
        w = torch.randn(10, 64, generator=random).double()
        parts, groups = w.unflatten(1, (-1, GROUP)), x.unflatten(-1, (-1, GROUP))
        scale = parts.abs().mean(2, keepdim=True).half().double()
        whole = groups / groups.abs().amax(-1, keepdim=True) * 127
        if is_clear(whole[whole.abs() < 126.9], [0.5]) and is_clear(parts / scale, [0.5]):
            return x, w, None, None
        seed += 1000


def leaves(*tensors):
    return [None if t is None else t.clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("name", ROUNDINGS)
def test_results_and_gradients_are_the_formulas(name, has_norm, dtype):
    for seed in range(3):
        check(case(name, has_norm, seed), getattr(torch, dtype), name)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ROUNDINGS)
def test_rounded_in_part_is_the_formula(name, part):
    """With a lambda below 1."""
    check(case(name, True, 0), torch.float32, name, part=part)


@pytest.mark.parametrize("part", [*PARTS, 1.0])
def test_groups_are_the_formula(part):
    check(case_of_groups(0), torch.float32, "absmean", GROUP, part)


def check(operands, dtype, name, group=None, part=1.0):
    """A layer's results and gradients are those of the formula in float64."""
    given_x, given_w, given_alpha, given_gain = operands
    x, w, alpha, gain = leaves(*operands)
    grad = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(9)).double()
    expected = formula(x, w, alpha, gain, name, group, part)
    expected.backward(grad)
    settings = {"weights": name, "group": group, "rms_norm": gain is not None}
    layer = BitLinear(w.shape[1], 10, bias=False, **settings).to(dtype)
    layer.lambda_ = part
    with torch.no_grad():
        layer.weight.copy_(given_w)
        if name == "seq":
            layer.weight_clip_val.copy_(given_alpha)
        if gain is not None:
            layer.rms_norm.weight.copy_(given_gain)
    ours = given_x.to(dtype).requires_grad_()
    y = layer(ours)
    y.backward(grad.to(dtype))
    pairs = [(y, expected), (ours.grad, x.grad), (layer.weight.grad, w.grad)]
    if name == "seq":
        pairs.append((layer.weight_clip_val.grad, alpha.grad))
    if gain is not None:
        pairs.append((layer.rms_norm.weight.grad, gain.grad))
    for found, wanted in pairs:
        wanted = torch.zeros_like(found) if wanted is None else wanted
        assert found.dtype == dtype
        assert (found - wanted).abs().max() <= ERROR * wanted.abs().max()


@pytest.mark.parametrize("name", ["absmean", "sign"])
def test_weights_are_those_of_quantize(name):
    """The trits of NumPy's formulas, and the scale to float32's last bits."""
    layer = BitLinear(48, 36, weights=name)
    w = layer.weight.detach().numpy()
    trits, scale = ternops.absmean.absmean(w) if name == "absmean" else sign_mean(w)
    matrix = layer.to_ternary().matrix
    assert np.array_equal(matrix.to_trits(), trits)
    assert matrix.scale == pytest.approx(scale, rel=1e-6)


def test_groups_are_those_of_quantize():
    """With scales of float16, and a step of activations for each group."""
    layer = BitLinear(256, 36, group=128)
    found = layer.to_ternary()
    W = ternops.quantize(layer.weight.detach().numpy(), group=128)
    assert found.matrix.group == 128
    assert np.array_equal(found.matrix.to_trits(), W.to_trits())
    assert np.array_equal(found.matrix.scale, W.scale)
    x = torch.randn(3, 256)
    x[:, :128] *= 1000
    assert torch.allclose(found(x), layer(x), rtol=1e-5, atol=1e-4)


def test_first_seq_is_that_of_quantize():
    """alpha begins with max|w| of a row, as in the method "seq", whose scales are float16: trits
    are the same but where that is another side of a half."""
    layer = BitLinear(48, 36, weights="seq")
    w = layer.weight.detach().numpy()
    W = ternops.quantize(w, method="seq", levels=3, group="row")
    matrix = layer.to_ternary().matrix
    assert np.allclose(matrix.scale, W.scale, rtol=2.0**-11)
    clear = np.abs(np.abs(w / W.scale[:, None]) - 0.5) > 2.0**-10
    assert clear.mean() > 0.99
    assert np.array_equal(matrix.to_trits()[clear], W.to_trits()[clear])


@settings(max_examples=40, deadline=None)
@given(
    batch=st.lists(st.integers(0, 4), max_size=3),
    rows=st.integers(1, 40),
    columns=st.integers(1, 80),
    name=st.sampled_from(ROUNDINGS),
    has_bias=st.booleans(),
    has_norm=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_to_ternary_is_the_same_function(batch, rows, columns, name, has_bias, has_norm, dtype):
    """Of any shape and dtype: to rounding, of float32's sums and steps or of a dtype's results."""
    dtype = getattr(torch, dtype)
    torch.manual_seed(rows * columns)
    layer = BitLinear(columns, rows, has_bias, weights=name, rms_norm=has_norm).to(dtype)
    x = torch.randn(*batch, columns).to(dtype)
    with torch.no_grad():
        y, found = layer(x), layer.to_ternary()(x)
    assert y.shape == found.shape == (*batch, rows)
    assert y.dtype == found.dtype == dtype
    if y.numel():
        size = x.float().abs().max() * layer.weight.float().abs().max() * columns + 1
        error = {torch.float32: 1e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}[dtype]
        assert (y.float() - found.float()).abs().max() <= error * max(1.0, float(size))


def test_autocast_computes_in_bfloat16():
    """As nn.Linear does; master weights and their gradients stay float32."""
    layer, x = BitLinear(24, 10), torch.randn(3, 24)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32
    assert torch.allclose(y.float(), layer(x), rtol=2e-2, atol=2e-2)


def test_float16_sums_beyond_float16_are_right():
    layer = BitLinear(4096, 4, bias=False, weights="sign").half()
    with torch.no_grad():
        layer.weight.fill_(-0.001)
        layer.weight[:, 0] = -0.9
    y = layer(torch.full((1, 4096), 0.5).half())
    assert y.isfinite().all()


@pytest.mark.parametrize("name", ROUNDINGS)
def test_compiled_without_a_break(name):
    layer = BitLinear(24, 10, weights=name, rms_norm=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 24)
    y = layer(x)
    y.sum().backward()
    expected = layer.weight.grad.clone()
    layer.weight.grad = None
    found = compiled(x)
    found.sum().backward()
    assert torch.allclose(found, y, atol=1e-6)
    assert torch.allclose(layer.weight.grad, expected, atol=1e-6)


@pytest.mark.parametrize("name", ROUNDINGS)
def test_it_learns(name):
    """A layer follows another one's outputs to a fifth of where it began."""
    torch.manual_seed(1)
    teacher = torch.randn(16, 32).sign() * 0.1
    layer = BitLinear(32, 16, bias=False, weights=name)
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    losses = []
    for _ in range(150):
        x = torch.randn(64, 32)
        loss = (layer(x) - x @ teacher.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < losses[0] / 5


def test_state_dicts_of_linear_layers_load():
    linear, layer = nn.Linear(24, 10), BitLinear(24, 10)
    layer.load_state_dict(linear.state_dict())
    assert torch.equal(layer.weight, linear.weight)
    linear.load_state_dict(layer.state_dict())
    extended = BitLinear(24, 10, weights="seq", rms_norm=True).state_dict()
    assert set(extended) == {"weight", "bias", "weight_clip_val", "rms_norm.weight"}
    other = BitLinear(24, 10, weights="seq", rms_norm=True)
    other.load_state_dict(extended)
    x = torch.randn(2, 24)
    first = BitLinear(24, 10, weights="seq", rms_norm=True)
    first.load_state_dict(extended)
    assert torch.equal(first(x), other(x))


def test_from_linear_keeps_the_parameters():
    linear = nn.Linear(24, 10).eval()
    layer = BitLinear.from_linear(linear, weights="seq", rms_norm=True)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert not layer.training
    assert torch.equal(layer.weight_clip_val[:, 0], linear.weight.abs().amax(1))


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match="weights='seqq': expected one of absmean, sign, seq"):
        BitLinear(4, 4, weights="seqq")
    with pytest.raises(ValueError, match=r"group=48: expected one of 16, .* that divides the 96"):
        BitLinear(96, 4, group=48)
    with pytest.raises(ValueError, match="group=32: expected None with weights='seq'"):
        BitLinear.from_linear(nn.Linear(64, 4), weights="seq", group=32)
    layer = BitLinear(4, 4)
    layer.lambda_ = 1.5
    with pytest.raises(ValueError, match=r"lambda_=1\.5: expected 0 to 1"):
        layer(torch.zeros(1, 4))
    layer.lambda_ = 0.5
    with pytest.raises(ValueError, match=r"lambda_=0\.5: expected 1, which rounds"):
        layer.to_ternary()
    with pytest.raises(TypeError, match="x: dtype complex64, expected floats"):
        BitLinear(4, 4)(torch.zeros(1, 4, dtype=torch.complex64))
    with pytest.raises(TypeError, match="x: dtype int64, expected floats"):
        BitLinear(4, 4)(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match="weight: device meta, expected a CPU tensor"):
        BitLinear(4, 4, device="meta").to_ternary()
    layer = BitLinear(4, 4)
    with torch.no_grad():
        layer.weight[1, 2] = torch.nan
    with pytest.raises(ValueError, match="weight: holds NaN or infinity, expected finite"):
        layer.to_ternary()
    with pytest.raises(TypeError, match="weight: dtype complex64, expected real floats"):
        BitLinear.from_linear(nn.Linear(4, 4, dtype=torch.complex64))
