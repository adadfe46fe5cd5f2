"""Stacks of residual blocks: what they are, their products, their files, and the paper's sizes."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import safetensors.numpy

import ternops
from ternops.absmean import MIN_ABSMAX
from ternops.kernels import reference
from ternops.stacks.blocks import balanced, magnitudes
from ternops.stacks.decompose import MAX_EXACT_SIDE, low_rank
from tests.helpers.internals import blocks_of, packed

RANDOM = np.random.default_rng(7)


def weights(rows=70, columns=130, scale=0.02):
    return (RANDOM.standard_normal((rows, columns)) * scale).astype(np.float32)


def naive_product(stack, x):
    """x @ S.T as `StackMatrix` says, from the blocks' public values alone."""
    total = np.zeros((len(x), stack.shape[0]), np.float32)
    for block in blocks_of(stack):
        signs = block.signs.to_trits()
        for k in range(stack.rank):
            inner, outer = balanced(block.right[k : k + 1], block.left.T[k : k + 1])
            quantized, step = reference.quantize_rows(x * inner, MIN_ABSMAX)
            sums = reference.matmul_int32(quantized, signs).astype(np.float32) * step[:, None]
            total = total + outer * sums
    return total


def test_blocks_are_signs_times_the_best_rank_of_magnitudes():
    w = weights()
    stack = ternops.stack(w, blocks=3, rank=2)
    rest = w
    for block in blocks_of(stack):
        signs = block.signs.to_trits()
        assert (signs == np.where(rest < 0, -1, 1)).all()
        u, s, v = np.linalg.svd(np.abs(rest), full_matrices=False)
        best = (u[:, :2] * s[:2]) @ v[:2]
        product = block.left.astype(np.float32) @ block.right.astype(np.float32)
        np.testing.assert_allclose(product, best, atol=2e-3 * np.abs(rest).max())
        rest = rest - signs * magnitudes(block.left, block.right)
    np.testing.assert_allclose(w - stack.to_dense(), rest, atol=1e-7)


def test_each_block_leaves_less_than_the_one_before():
    w = weights(128, 96)
    stack = ternops.stack(w, blocks=8, rank=4)
    errors = [
        np.linalg.norm(w - stack.limited(sum(b.nbytes for b in blocks_of(stack)[:n])).to_dense())
        for n in range(1, 9)
    ]
    assert all(b < 0.85 * a for a, b in itertools.pairwise(errors))
    assert errors[0] < 0.62 * np.linalg.norm(w)  # Gaussian magnitudes, rank 1: sqrt(1 - 2 / pi)


def test_a_matrix_of_rank_one_magnitudes_is_one_block():
    w = np.outer(1 + np.arange(40), 2.0 ** np.arange(-8, 8)).astype(np.float32)
    w *= RANDOM.choice([-1, 1], w.shape).astype(np.float32)
    np.testing.assert_allclose(ternops.stack(w, blocks=1, rank=1).to_dense(), w, rtol=2e-3)


def test_random_projections_find_what_the_decomposition_does():
    matrix = np.abs(weights(MAX_EXACT_SIDE + 40, MAX_EXACT_SIDE + 70, 1.0))
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    best = np.linalg.norm(matrix - (u[:, :4] * s[:4]) @ v[:4])
    left, right = low_rank(matrix, 4)
    assert best <= np.linalg.norm(matrix - left @ right) * (1 + 1e-6) <= 1.01 * best


def test_active_columns_are_right_first():
    w, x = weights(64, 80), RANDOM.standard_normal((50, 80)).astype(np.float32)
    x[:, :10] *= 30
    error = {
        name: np.linalg.norm(x @ (w - ternops.stack(w, 2, 2, activations=given).to_dense()).T)
        for name, given in (("with", x), ("without", None))
    }
    assert error["with"] < 0.85 * error["without"]


def test_what_was_never_active_is_not_lost():
    w, x = weights(32, 40), np.zeros((3, 40), np.float32)
    x[:, 0] = 1
    assert np.isfinite(ternops.stack(w, 4, 2, activations=x).to_dense()).all()
    dead = ternops.stack(w, 1, 2, activations=0 * x).to_dense()
    assert (dead == ternops.stack(w, 1, 2).to_dense()).all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (16, 512), (70, 130), (33, 600)])
@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_products_have_the_bits_of_the_oracle(shape, tokens):
    stack = ternops.stack(weights(*shape), blocks=3, rank=4)
    x = RANDOM.standard_normal((tokens, shape[1])).astype(np.float32)
    expected = naive_product(stack, x)
    assert (x @ stack.T == expected).all()
    assert (stack @ x.T == expected.T).all()
    assert (stack @ x[0] == expected[0]).all()
    assert (np.matmul(x[None], stack.T)[0] == expected).all()


def test_products_over_rows_exchange_the_factors():
    stack = ternops.stack(weights(), blocks=2, rank=3)
    x = RANDOM.standard_normal((4, 70)).astype(np.float32)
    np.testing.assert_allclose(x @ stack, x @ stack.to_dense(), rtol=0.03, atol=0.01)
    assert (stack.T @ x.T == (x @ stack).T).all()
    swapped = ternops.stacks.matrix.StackMatrix(
        tuple(
            b._replace(signs=ternops.pack(b.signs.to_trits().T.copy(), encoding="one_bit"),
                       left=b.right.T, right=b.left.T)
            for b in blocks_of(stack)
        ),
        (130, 70),
    )  # fmt: skip
    assert (x @ stack == naive_product(swapped, x)).all()


def test_products_are_close_to_the_dense_ones():
    w = weights(200, 300)
    stack = ternops.stack(w, blocks=10, rank=8)
    x = RANDOM.standard_normal((6, 300)).astype(np.float32)
    for dense, most in ((stack.to_dense(), 0.015), (w, 0.04)):
        error = np.linalg.norm(x @ stack.T - x @ dense.T) / np.linalg.norm(x @ dense.T)
        assert error < most


def test_many_tokens_are_taken_piece_by_piece(monkeypatch):
    stack = ternops.stack(weights(), blocks=2, rank=3)
    x = RANDOM.standard_normal((9, 130)).astype(np.float32)
    whole = x @ stack.T
    monkeypatch.setattr(ternops.stacks.matrix, "_FLOATS_AT_ONCE", 130 * 3 * 2)
    assert (x @ stack.T == whole).all()


def test_small_weights_keep_their_digits():
    w = weights()
    x = RANDOM.standard_normal((2, 130)).astype(np.float32)
    small = ternops.stack(w * np.float32(2.0**-10), 4, 4)
    np.testing.assert_allclose(
        x @ small.T * 2.0**10, x @ ternops.stack(w, 4, 4).T, atol=2e-3, rtol=2e-2
    )


def test_tokens_that_are_not_finite_stay_alone():
    stack = ternops.stack(weights(), blocks=2, rank=3)
    x = np.ones((3, 130))
    x[1, 5] = np.inf
    y = x @ stack.T
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float64])
def test_operands_are_taken_as_float32(dtype):
    stack = ternops.stack(weights(), blocks=2, rank=3)
    x = RANDOM.integers(-9, 9, (2, 130)).astype(dtype)
    assert (x @ stack.T == x.astype(np.float32) @ stack.T).all()


def test_limited_has_the_first_blocks_and_shares_them():
    stack = ternops.stack(weights(), blocks=5, rank=2)
    each = blocks_of(stack)[0].nbytes
    assert stack.nbytes == 5 * each
    for count in range(1, 6):
        part = stack.limited(count * each + each // 2)
        assert part.blocks == count
        assert blocks_of(part)[-1] is blocks_of(stack)[count - 1]
        assert part.nbytes <= count * each + each // 2
    assert stack.T.limited(each).shape == (130, 70)
    assert stack.limited(10**9) is stack
    with pytest.raises(ValueError, match=rf"nbytes={each - 1}: expected {each} at least"):
        stack.limited(each - 1)


def test_bits_are_the_formulas():
    stack = ternops.stack(weights(512, 512), blocks=2, rank=4)
    factors = 2 * 16 * 4 * (512 + 512) / 512**2
    padding = 2 * 8 * (blocks_of(stack)[0].signs.nbytes - 512 * 64) / 512**2
    assert stack.bits_per_weight == pytest.approx(2 + factors + padding)


# What the authors' published models hold, in elements, as their pages show it: signs eight to a
# byte, factors of rank 16, 16 blocks; embeddings, head and norms as they were.
PUBLISHED = {
    "Llama 2 7B": (32, 4096, 11008, 4096, 32000, 13.9),
    "Llama 2 70B": (80, 8192, 28672, 1024, 32000, 141),
    "Llama 3 8B": (32, 4096, 14336, 1024, 128256, 15.7),
    "Llama 3 70B": (80, 8192, 28672, 1024, 128256, 142),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_of_the_published_models(name):
    layers, hidden, ffn, keys, vocabulary, billions = PUBLISHED[name]
    shapes = [(hidden, hidden)] * 2 + [(keys, hidden)] * 2 + [(ffn, hidden)] * 2 + [(hidden, ffn)]
    stack = ternops.stacks.matrix
    elements = stack.BLOCKS * layers * sum(
        rows * columns // 8 + stack.RANK * (rows + columns) for rows, columns in shapes
    )  # fmt: skip
    elements += 2 * vocabulary * hidden + (2 * layers + 1) * hidden
    assert f"{elements / 1e9:.3g}" == f"{billions:.3g}"
    small = blocks_of(ternops.stack(weights(64, 512), blocks=1, rank=stack.RANK))[0]
    assert small.left.size + small.right.size == stack.RANK * (64 + 512)
    assert packed(small.signs).layout.nbytes(64, 512) == 64 * 512 // 8


def test_a_file_has_all_of_it(tmp_path):
    path, stack = tmp_path / "w.stack", ternops.stack(weights(), blocks=3, rank=2)
    for each in (stack, stack.T):
        each.save(path)
        found = ternops.StackMatrix.load(path)
        assert repr(found) == repr(each)
        assert (found.to_dense() == each.to_dense()).all()
    x = np.ones((1, 70), np.float32)
    assert (x @ found.T == x @ stack).all()


def test_no_more_of_a_file_is_read_than_there_is_room_for(tmp_path):
    path, stack = tmp_path / "w.stack", ternops.stack(weights(), blocks=4, rank=2)
    stack.save(path)
    each = blocks_of(stack)[0].nbytes
    data = bytearray(path.read_bytes())
    signs = packed(blocks_of(stack)[3].signs).bytes[: 70 * 17].tobytes()
    data[data.index(signs)] ^= 1  # of the last block, which is not even looked at
    path.write_bytes(data)
    found = ternops.StackMatrix.load(path, 2 * each)
    assert found.blocks == 2
    assert (found.to_dense() == stack.limited(2 * each).to_dense()).all()
    with pytest.raises(ValueError, match="was damaged after it was written"):
        ternops.StackMatrix.load(path)
    with pytest.raises(ValueError, match=rf"nbytes=7: expected {each} at least"):
        ternops.StackMatrix.load(path, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format 'other' version '1', expected 'ternops stack'"),
        ({"rank": "999"}, "3 blocks of rank 999"),
        ({"rank": "4"}, "0.left is F16 .70, 2., expected F16 .70, 4."),
        ({"rows": "-1"}, "shape"),
        ({"transposed": "2"}, "transposed '2'"),
        ({"crc32": "0 0 0"}, "block 0 was damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, message):
    path = tmp_path / "w.stack"
    ternops.stack(weights(), blocks=3, rank=2).save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    path.write_bytes(safetensors.numpy.save(tensors, {**metadata, **change}))
    with pytest.raises(ValueError, match=message) as error:
        ternops.StackMatrix.load(path)
    assert str(path) in str(error.value)


def test_other_files_are_none(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError, match="is not a file"):
        ternops.StackMatrix.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no intact file of a stack"):
        ternops.StackMatrix.load(path)


def test_copies():
    stack = ternops.stack(weights(), blocks=2, rank=2)
    for other in (copy.copy(stack), copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        assert (other.to_dense() == stack.to_dense()).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"blocks": 0}, ValueError, "blocks=0: expected 1 to 64"),
        ({"blocks": 2.5}, TypeError, "blocks=2.5: expected an integer"),
        ({"rank": 257}, ValueError, "rank=257: expected 1 to 256"),
        ({"rank": True}, TypeError, "rank=True: expected an integer"),
        ({"w": np.zeros(3)}, ValueError, "w: shape .3,., expected two dimensions"),
        ({"w": np.zeros((2, 2), int)}, TypeError, "w: dtype int64"),
        ({"w": np.full((2, 2), np.nan)}, ValueError, "w: w.0, 0. is nan, expected finite"),
        ({"w": np.full((2, 2), 1e30)}, ValueError, "w: largest magnitude 1e.30"),
        ({"activations": np.ones((3, 4))}, ValueError, "activations: shape .3, 4., expected"),
        ({"activations": [[1, 2]]}, TypeError, "activations: dtype int64, expected floats"),
        ({"activations": np.full((1, 130), np.inf)}, ValueError, "activations: NaN or infinity"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ternops.stack(**{"w": weights(), **options})


def test_bad_operands_are_named():
    stack = ternops.stack(weights(), blocks=1, rank=1)
    with pytest.raises(TypeError, match=r"^matmul: . has dtype int64"):
        stack @ np.zeros(130, np.int64)
    with pytest.raises(ValueError, match=r"^matmul: . has shape .129,., expected 130 on axis -1"):
        stack @ np.zeros(129)
    with pytest.raises(ValueError, match=r"^matmul: . is a scalar"):
        stack @ np.float32(1)
    with pytest.raises(TypeError):
        stack @ stack
    with pytest.raises(TypeError):
        np.add(stack, 1)
