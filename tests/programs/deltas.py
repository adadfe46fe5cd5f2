"""Models with deltas beside the oracle, on whatever tier this process has."""

from __future__ import annotations

import numpy as np

from ternops.decoder import Batch, reference
from ternops.decoder.session import Session
from tests.helpers.cases import same_bits
from tests.helpers.small_models import small_config, small_model, tuned_model


def main() -> None:
    """All in one pass, token by token, and several in a batch; "done" if all have the same bits."""
    for kind in ("fp16", "two_bit"):
        config = small_config("hidden 257", "llama")
        for threads in (1, 3):
            model = tuned_model(small_model(config, kind, threads))
            tokens = np.random.default_rng(0).integers(0, config.vocabulary, 40).tolist()
            wanted = reference.logits(model, tokens, delta="b")
            assert same_bits(model.logits(tokens, "b"), wanted), kind
            session = Session(model, delta="b")
            found = [session.step(token).copy() for token in tokens[:4]]
            assert same_bits(np.array(found), wanted[:4]), kind
            batch, expected = Batch(model, 9), []
            for number in range(9):
                name, prompt = (None, "a", "b", "c", "b")[number % 5], tokens[number : number + 3]
                batch.add(prompt, 4, delta=name)
                expected.append(list(model.generate(prompt, 4, delta=name)))
            given: list[list[int]] = [[] for _ in expected]
            while len(batch):
                for request, token, *_ in batch.step():
                    given[request] += [] if token is None else [token]
            assert given == expected, kind
    print("done")


if __name__ == "__main__":
    main()
