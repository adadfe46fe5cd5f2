"""The stacked model file: what is written, what of it counts, and what a decoder makes of it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.calibration import activations, float_matrix
from ternops.decoder.formats.convert_stack import Sized, order_of, stack_model
from ternops.decoder.formats.loading import TINY, open_checkpoint
from ternops.decoder.formats.safetensors_file import Mapped, map_file
from ternops.decoder.formats.stack_file import StackFile, check_stack, open_packed
from ternops.decoder.weights import HalfMatrix
from ternops.sizes import parse_size
from tests.helpers import cases, checkpoints

TOKENS = [1, 5, 300, 42, 7, 99]


def write(path, blocks=3, rank=2, given=None, source=TINY):
    checkpoint = open_checkpoint(source)
    stack_model(checkpoint, source, path, blocks, rank, given)
    return path


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    return write(tmp_path_factory.mktemp("stack") / "tiny.stack", blocks=4)


@pytest.fixture
def floats(tmp_path):
    """A folder of a llama whose weights are floats."""
    values = {k: v for k, v in checkpoints.tensors().items() if "sub_norm" not in k}
    config = {k: v for k, v in checkpoints.CONFIG.items() if k != "quantization_config"}
    changes = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    return checkpoints.write(tmp_path / "floats", {**config, **changes}, values)


def test_logits_are_those_of_the_dense_weights(stacked):
    """With all of it, with the least, and with what lies between, one token at a time and several,
    and as the reference has them."""
    model = Model.from_pretrained(stacked, threads=2)
    assert model.encoding == "stack"
    sizes = open_packed(stacked).sizes
    seen = []
    for limit in (sizes[-1], sizes[0], sizes[len(sizes) // 2], "1GB"):
        model.limit(limit)
        expected = reference.logits(model, TOKENS)
        assert cases.same_bits(model.logits(TOKENS), expected)
        assert cases.same_bits(model.logits(TOKENS[:1]), expected[:1])
        seen.append(expected)
    assert cases.same_bits(seen[0], seen[3])
    assert not np.allclose(seen[0], seen[1])


def test_memory_is_what_was_asked_for(stacked):
    sizes = open_packed(stacked).sizes
    for limit in (sizes[0], sizes[3] + 1, sizes[-2], sizes[-1] + 10**6):
        model = Model.from_pretrained(stacked, memory=limit)
        used = max(size for size in sizes if size <= limit)
        # All but what fills up lines and the embedding's rows, which both count alike.
        file = open_packed(stacked)
        assert used - file.fixed_bytes == model.weights.linear_bytes
    model.limit(sizes[0])
    assert model.weights.linear_bytes == sizes[0] - file.fixed_bytes
    assert all(layer.linear[name].count == 1 for layer in model.weights.layers for name in "qkvo")


def test_less_than_a_block_of_each_matrix_is_refused(stacked):
    least = open_packed(stacked).sizes[0]
    with pytest.raises(ValueError, match=rf"memory=1,000: expected {least:,} bytes at least"):
        Model.from_pretrained(stacked, memory="1kB")
    model = Model.from_pretrained(stacked)
    with pytest.raises(ValueError, match=r"expected .* bytes at least"):
        model.limit(least - 1)


def test_other_models_have_no_limit():
    with pytest.raises(ValueError, match="memory: the model is no stack of residual blocks"):
        Model.from_pretrained(memory="1GB")
    with pytest.raises(ValueError, match="limit: the model is no stack of residual blocks"):
        Model.from_pretrained().limit("1GB")


def test_a_stack_has_no_deltas(stacked):
    with pytest.raises(ValueError, match="deltas: the model is a stack of residual blocks"):
        Model.from_pretrained(stacked, deltas={"tuned": "nowhere"})


def test_a_stack_has_no_other_form(stacked):
    for weights in ("two_bit", "fp16"):
        with pytest.raises(ValueError, match="a stack of residual blocks, which has no other form"):
            Model.from_pretrained(stacked, weights=weights)


def test_a_copy_is_of_what_counts(stacked):
    model = Model.from_pretrained(stacked, memory=open_packed(stacked).sizes[4])
    copy = pickle.loads(pickle.dumps(model))
    assert cases.same_bits(copy.logits(TOKENS), model.logits(TOKENS))
    with pytest.raises(ValueError, match="limit: the model is no stack"):
        copy.limit("1GB")


def test_more_memory_is_nearer_to_the_float_model(floats, tmp_path):
    path = write(tmp_path / "floats.stack", blocks=8, rank=3, source=floats)
    tokens = [1, 5, 3, 2, 7]
    checkpoint = open_checkpoint(floats)
    model = Model.from_pretrained(path)
    for layer, each in enumerate(model.weights.layers):
        for name, stack in each.linear.items():
            dense = float_matrix(checkpoint, layer, name)
            error = np.linalg.norm(stack.to_dense() - dense) / np.linalg.norm(dense)
            assert error < 0.1
            each.linear[name] = HalfMatrix.from_floats(dense)
    whole = reference.logits(model, tokens, reference.Unquantised)
    errors = []
    stacked = Model.from_pretrained(path)
    sizes = open_packed(path).sizes
    for limit in sizes[:: len(sizes) // 3]:
        stacked.limit(limit)
        errors.append(np.linalg.norm(stacked.logits(tokens) - whole) / np.linalg.norm(whole))
    assert errors[0] > 2 * errors[1] > 3 * errors[2]


def test_what_a_text_shows_makes_its_outputs_better(floats, tmp_path):
    checkpoint = open_checkpoint(floats)
    window = [1, 5, 3, 2, 7, 6, 4]
    seen = activations(checkpoint, iter([window]))
    assert all(len(each) == len(window) for each in seen.values())
    for given, name in ((None, "plain"), (seen, "told")):
        write(tmp_path / name, blocks=2, rank=1, given=given, source=floats)
    errors = {
        name: sum(
            np.linalg.norm(x @ (stack.to_dense() - float_matrix(checkpoint, *key)).T)
            for key, x in seen.items()
            for stack in [StackFile(tmp_path / name).half(*key)]
        )
        for name in ("plain", "told")
    }
    assert errors["told"] < errors["plain"]


def test_activations_end_where_there_are_enough():
    seen = activations(open_checkpoint(), iter([[1, 2, 3], [4, 5, 6], [7, 8]]), most=5)
    assert {len(each) for each in seen.values()} == {5}


def test_the_order_is_by_what_a_byte_gains():
    found = {
        (0, "q"): [Sized(10, 0.5), Sized(10, 0.3), Sized(10, 0.25)],
        (0, "k"): [Sized(2, 0.5), Sized(2, 0.01), Sized(2, 0.4)],
        (1, "q"): [Sized(10, 0.9), Sized(10, 0.27)],
    }
    q, k, other = found
    assert list(order_of(found)) == [
        (q, 0), (k, 0), (other, 0), (q, 1), (other, 1), (q, 2), (k, 1), (k, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("change", ["order", "missing", "rank", "dtype", "version"])
def test_a_damaged_file_is_named(stacked, tmp_path, change):
    header, tensors = map_file(stacked)
    metadata = header["__metadata__"]
    words = {
        "order": r"blocks.3 is out of order",
        "missing": "tensor layers.0.q.blocks.2.left is missing",
        "rank": "rank 0, expected 1 to 256",
        "dtype": "layers.1.k.blocks.0.left is F32",
        "version": "format 'ternops stack model' version '9'",
    }[change]
    path = tmp_path / "damaged"
    if change == "missing":
        del tensors["layers.0.q.blocks.2.left"]
    if change == "dtype":
        tensors["layers.1.k.blocks.0.left"] = Mapped("F32", (16,), 0, np.zeros(64, np.uint8))
    if change == "rank":
        metadata["rank"] = "0"
    if change == "version":
        metadata["version"] = "9"
    checkpoints.write_raw(path, *relaid(metadata, tensors, is_sorted=change != "order"))
    with pytest.raises(ValueError, match=words) as error:
        open_packed(path)
    assert str(path) in str(error.value)


def relaid(metadata, tensors, is_sorted):
    """Header and data of the same tensors, in the order of the first blocks, or by their names."""
    from ternops.decoder.formats.packed_header import header_checksum

    def place(name):
        number = int(name.split(".blocks.")[1].split(".")[0]) if ".blocks." in name else -1
        return number if is_sorted else -number

    header, data = {"__metadata__": metadata}, b""
    for name in sorted(tensors, key=place):
        each = tensors[name]
        start, data = len(data), data + each.bytes.tobytes()
        header[name] = {
            "dtype": each.dtype, "shape": list(each.shape), "data_offsets": [start, len(data)]
        }  # fmt: skip
    metadata["header_crc32"] = "0" * 8
    metadata["filling"] = ""
    metadata["filling"] = " " * (-(8 + len(json.dumps(header))) % 64)
    metadata["header_crc32"] = header_checksum(header)
    return header, data


def test_verify_reads_all_of_it(stacked, tmp_path):
    assert len(list(open_packed(stacked).verify())) == len(set(open_packed(stacked).verify()))
    data = bytearray(stacked.read_bytes())
    data[-100] ^= 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match=r"tensor layers.*blocks.3.* was damaged"):
        list(open_packed(damaged).verify())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.2GB", 1_200_000_000), ("800 MB", 800_000_000), ("2g", 2 * 10**9), ("1.5GiB", 3 << 29),
        (" 64kib ", 65536), ("7", 7), ("7B", 7), (".5M", 500_000), ("1TB", 10**12), (12, 12),
        (np.int64(5), 5),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text, size):
    assert parse_size("memory", text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "1.2.3GB", "-1GB", "1 G i B", "1ib", "1GX", "1e9", "٣GB"]
)
def test_other_sizes_are_named(text):
    with pytest.raises(ValueError, match=r"memory=.*: expected a size as 800MB, 1.2GB or 1.5GiB"):
        parse_size("memory", text)


def test_sizes_that_are_no_numbers():
    with pytest.raises(TypeError, match=r"memory=1.5: expected bytes, or a size as '1.2GB'"):
        parse_size("memory", 1.5)
    with pytest.raises(ValueError, match="memory=-1: expected 0 bytes or more"):
        parse_size("memory", -1)


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path):
    checkpoint = open_checkpoint()
    with pytest.raises(ValueError, match="rank=0: expected 1 to 256"):
        stack_model(checkpoint, TINY, tmp_path / "x", 2, 0)
    with pytest.raises(KeyError):
        stack_model(checkpoint, TINY, tmp_path / "x", 2, 1, activations={})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="is a folder"):
        stack_model(checkpoint, TINY, tmp_path, 2, 1)


def test_what_is_no_stack(tmp_path):
    with pytest.raises(ValueError, match="memory: the model is no stack"):
        check_stack(open_checkpoint(), "memory")
    path = tmp_path / "x"
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="no intact safetensors file"):
        open_packed(path)
