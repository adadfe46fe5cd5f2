"""A product of every kernel, compared with its oracle; prints the name of the tier.

python -m tests.programs.tier_products [--decode]

With --decode a short text, too, which takes long to compile.
"""

from __future__ import annotations

import sys

import ternops
from ternops.isa import detect
from ternops.kernels import reference
from tests.helpers import cases, internals


def products() -> None:
    """One token and 33, by each kernel that takes them."""
    for encoding, kind in cases.KINDS:
        for shape in ((1, 1), (37, 1021), (64, 1024), (130, 641)):
            trits = cases.trits(*shape, encoding=encoding)
            x = cases.activations(33, shape[1])
            expected = reference.matmul_int32(x, trits)
            matrix = ternops.pack(trits, encoding=encoding)
            with internals.forced_kernel(kind) as kind_of:
                assert cases.same_bits(matrix @ x[0], expected[0]), (encoding, kind, shape)
                if kind not in cases.OF_ONE_TOKEN:
                    assert cases.same_bits(x @ matrix.T, expected), (encoding, kind, shape)
            assert kind_of.called


def text() -> None:
    """A prompt of the checkpoint in the package, and the token after it."""
    from ternops.decoder import Model
    from ternops.decoder import reference as decoder

    tokens = [0, 5, 900, 31, 77, 512]
    for head, cache in (("auto", "fp16"), ("screened", "int8")):
        model = Model.from_pretrained(threads=2, head=head, cache=cache)
        logits = model.logits(tokens)
        assert cases.same_bits(logits, decoder.logits(model, tokens))
        assert next(model.generate(tokens)) == logits[-1].argmax()


if __name__ == "__main__":
    products()
    if "--decode" in sys.argv[1:]:
        text()
    print(detect.TIER.name)
