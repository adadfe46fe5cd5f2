"""What one tier computes for the lossless table: the tiny checkpoint reads and decodes a text.

    python -m bench.suites.lossless.tier --threads 1 2

prints a line of JSON for each encoding, "fp16" among them, and thread count, on the tier of its
process; `bench.suites.lossless.proof` runs it once a tier.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ternops
from bench.core.command import make_parser
from bench.core.results import FP16
from ternops.decoder import Model, Session
from ternops.decoder.formats.loading import TINY
from ternops.decoder.perplexity import negative_log_likelihoods, perplexity, windows
from ternops.decoder.text import load_tokenizer
from ternops.encodings import TERNARY

#: Windows of text, and tokens of each, BOS included: the checkpoint's whole context.
WINDOWS, CONTEXT = 8, 512

Array = npt.NDArray[Any]


def computed(threads: Sequence[int], number: int, context: int) -> Iterator[dict[str, Any]]:
    """What this process computes, for each encoding and thread count, on `number` windows.

    read, decoded, sparse: digests of the first window's logits, the last with all left out that
    ReLU^2 makes 0; text: of all windows'. greedy: the most likely token at each position of all
    windows.
    """
    text = text_of(number, context)
    for encoding in (*TERNARY, FP16):
        yield from computed_with(encoding, threads, text)


def computed_with(
    encoding: str, threads: Sequence[int], text: list[list[int]]
) -> Iterator[dict[str, Any]]:
    """As `computed`, with one encoding on some windows."""
    weights = Model.from_pretrained(weights=encoding).weights
    for count in threads:
        model = Model(weights, count)
        logits = [model.logits(tokens) for tokens in text]
        decoded = {
            kind: decoded_digest(Model(weights, count, sparse=kind), text[0])
            for kind in ("never", "always")
            if kind == "never" or model.sparsity.kind != "never"
        }
        yield {
            "encoding": encoding, "threads": count, "read": digest_of(logits[:1]),
            "decoded": decoded["never"], "sparse": decoded.get("always", decoded["never"]),
            "text": digest_of(logits),
            "perplexity": perplexity_of(logits, text), "greedy": greedy(logits).tolist(),
        }  # fmt: skip


def text_of(number: int, context: int) -> list[list[int]]:
    """Windows of this package's own sources: Python, which is what the checkpoint knows, and files
    that it cannot have seen.

    Raises ValueError for none, and for more than there are.
    """
    sources = sorted(Path(ternops.__file__).parent.glob("*.py"))
    text = "".join(path.read_text("utf-8") for path in sources)
    found = list(windows(load_tokenizer(TINY), text, context))
    if not 1 <= number <= len(found):
        raise ValueError(f"windows={number}: expected 1 to the text's {len(found)}")
    return found[:number]


def decoded_digest(model: Model, tokens: Sequence[int]) -> str:
    """Of the logits of tokens that are decoded one by one."""
    session = Session(model)
    return digest_of([np.stack([session.step(token).copy() for token in tokens])])


def digest_of(logits: Sequence[npt.NDArray[np.float32]]) -> str:
    """SHA-256 of all bits, in hexadecimal."""
    digest = hashlib.sha256()
    for each in logits:
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


def perplexity_of(logits: Sequence[Array], text: list[list[int]]) -> float:
    """Of windows, by the (tokens, vocabulary) logits of each."""
    losses: list[float] = []
    for each, tokens in zip(logits, text, strict=True):
        losses += negative_log_likelihoods(each[:-1], tokens[1:])
    return perplexity(losses)


def greedy(logits: Sequence[Array]) -> Array:
    """The most likely token at each position, one window after another."""
    return np.concatenate([each.argmax(axis=1) for each in logits])


def main() -> None:
    parser = make_parser("bench.suites.lossless.tier", __doc__)
    parser.add_argument("--threads", type=int, nargs="+", required=True, metavar="N")
    parser.add_argument("--windows", type=int, default=WINDOWS, metavar="N", help="of text")
    parser.add_argument("--context", type=int, default=CONTEXT, metavar="N", help="their tokens")
    arguments = parser.parse_args()
    try:
        for each in computed(arguments.threads, arguments.windows, arguments.context):
            print(json.dumps(each))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
