"""Unrolled networks of signs: products, bits a link, the picture; with torch, the training."""

from __future__ import annotations

import json

import numpy as np
import pytest

BLOCKS, UNKNOWNS, MEASUREMENTS = 4, 24, 12


@pytest.fixture
def unrolling():
    import one_bit_unrolling

    return one_bit_unrolling


@pytest.fixture
def problem(unrolling):
    return unrolling.new_problem(BLOCKS, UNKNOWNS, MEASUREMENTS, seed=5)


def of_signs(unrolling, problem, depth):
    """The untrained network: the transpose of A, a step and thresholds that suit it."""
    signs = problem.signs.swapaxes(1, 2).copy()
    return unrolling.Network([signs] * depth, 0.5 * problem.scale, [0.12] * depth)


def test_products_of_blocks_are_those_of_the_whole_matrix_and_of_numpy(unrolling, problem):
    x = np.random.default_rng(1).standard_normal((7, BLOCKS * UNKNOWNS), np.float32)
    x[3] = 0
    scale = np.float32(0.37)
    codes, step = unrolling.to_int8(x)
    assert codes.dtype == np.int8
    assert np.abs(codes).max(axis=1).tolist() == [127, 127, 127, 0, 127, 127, 127]
    sums = codes.astype(np.int32) @ unrolling.diagonal(problem.signs).T.astype(np.int32)
    expected = (sums.astype(np.float32) * scale) * step
    for product in (unrolling.block_product, unrolling.whole_product):
        assert (product(problem.signs, scale)(x) == expected).all()


def test_a_diagonal_has_its_blocks_and_zeros(unrolling, problem):
    whole = unrolling.diagonal(problem.signs)
    assert whole.shape == (BLOCKS * MEASUREMENTS, BLOCKS * UNKNOWNS)
    assert (whole != 0).sum() == problem.signs.size
    at = slice(MEASUREMENTS, 2 * MEASUREMENTS), slice(UNKNOWNS, 2 * UNKNOWNS)
    assert (whole[at] == problem.signs[1]).all()


def test_measurements_are_those_of_sparse_unknowns(unrolling, problem):
    x, y = unrolling.draw_samples(problem, 400, seed=2)
    assert np.mean(x != 0) == pytest.approx(unrolling.DENSITY, abs=0.01)
    clean = x @ unrolling.diagonal(problem.signs).T * problem.scale
    assert (y - clean).std() / clean.std() == pytest.approx(unrolling.NOISE, rel=0.05)


def test_layers_lower_the_error_and_blocks_equal_the_whole(unrolling, problem):
    x, y = unrolling.draw_samples(problem, 300, seed=3)
    errors = []
    for depth in (1, 4, 16):
        network = of_signs(unrolling, problem, depth)
        found = unrolling.run(problem, network, y)
        assert (found == unrolling.run(problem, network, y, is_whole=True)).all()
        errors.append(unrolling.error_db(x, found))
    assert 0 > errors[0] > errors[1] + 1 > errors[2] + 2


def test_solvers_come_closer_and_the_fast_one_faster(unrolling, problem):
    x, y = unrolling.draw_samples(problem, 100, seed=4)
    slow = [unrolling.solver_db(problem, x, y, steps, is_fast=False) for steps in (2, 32)]
    fast = [unrolling.solver_db(problem, x, y, steps, is_fast=True) for steps in (2, 32)]
    assert 0 > slow[0] > slow[1] > fast[1]


def test_bits_a_link_count_every_link_of_the_whole(unrolling, problem):
    network = of_signs(unrolling, problem, 3)
    share = np.mean(problem.signs == 1)
    of_sign = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    bits = unrolling.bits_a_link(network)
    assert bits["entropy"] == pytest.approx(of_sign / BLOCKS)
    assert 1 / BLOCKS <= bits["stored"] < 1.58
    floats = unrolling.Network([problem.signs.astype(np.float32)] * 2, 1.0, [0.1] * 2)
    assert unrolling.bits_a_link(floats) == {"entropy": 32 / BLOCKS, "stored": 32 / BLOCKS}
    trits = np.resize(np.array([-1, 0, 1], np.int8), (1, 90, 60))
    bits = unrolling.bits_a_link(unrolling.Network([trits], 1.0, [0.1]))
    assert bits["entropy"] == pytest.approx(np.log2(3))
    assert bits["stored"] > np.log2(3)


def test_the_committed_results_say_what_the_picture_shows(unrolling):
    from pictures import unrolling_figure

    found = json.loads((unrolling.RESULTS / "results.json").read_text("utf-8"))
    rows = {(row["network"], row["depth"]): row for row in found["rows"]}
    assert {depth for _, depth in rows} == set(unrolling.DEPTHS)
    deepest = unrolling.DEPTHS[-1]
    for depth in unrolling.DEPTHS:
        one_bit = rows[unrolling.ONE_BIT, depth]
        assert one_bit["same_in_base3"]
        assert abs(one_bit["error_db"] - one_bit["torch_db"]) < 0.01
        assert one_bit["entropy"] <= 1 / found["blocks"] < one_bit["stored"] < np.log2(3)
        assert one_bit["error_db"] < rows[unrolling.SIGNS, depth]["error_db"]
    assert rows[unrolling.ONE_BIT, deepest]["error_db"] < rows["FISTA", deepest]["error_db"]
    left, right = unrolling_figure(found).axes
    assert len(left.lines) == 6
    assert len(right.patches) == 8


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["one-bit", "signs of A", "float", "ternary"])
def test_training_lowers_the_error_and_kernels_find_what_torch_does(unrolling, problem, kind):
    x, y = unrolling.draw_samples(problem, 300, seed=6)
    rate = unrolling.TERNARY_RATES[0] if kind == unrolling.TERNARY else unrolling.RATE
    errors = []
    for steps in (1, 80):
        network, in_torch = unrolling.train(problem, kind, 2, steps, rate, batch=64)
        found, theirs = unrolling.run(problem, network, y), in_torch(y)
        # A code may round the other way where sums were added up in another order.
        assert np.abs(found - theirs).max() < 0.05
        assert np.abs(found - theirs).mean() < 1e-4
        errors.append(unrolling.error_db(x, found))
    assert errors[1] < errors[0] - 0.5
    values = set(np.unique(np.stack(network.weights)).tolist())
    if kind != "float":
        assert values == ({-1, 0, 1} if kind == "ternary" else {-1, 1})
    if kind == "signs of A":
        assert all((each == problem.signs.swapaxes(1, 2)).all() for each in network.weights)
