"""Each engine's perplexity and greedy tokens on the same files, beside those of transformers.

    python -m bench.correctness

takes minutes, prints what was seen, and writes results/correctness/correctness.json and
docs/CORRECTNESS.md; --draw writes that again. The models are the two small ones of this repository,
with a file of Python's standard library that neither has seen, and one of random weights.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.core import command
from bench.core.correctness import CORRECTNESS_FILE, CORRECTNESS_FORMAT
from bench.core.envelope import envelope, save_json
from bench.core.errors import ResultsError
from bench.models import random_gguf
from bench.pages import correctness as page
from bench.suites.correctness import engines
from bench.suites.correctness.engines import Forward, LeftOut
from ternops.decoder import Config, open_checkpoint
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.loading import TINY
from ternops.decoder.perplexity import negative_log_likelihoods, perplexity, windows
from ternops.threads import check_threads, default_threads

ROOT = Path(__file__).parents[3]
_FOLDER = ROOT / "results" / "correctness"
#: A file of the standard library that the models were not trained on: the hash of its name says so.
HELD_OUT = "json/encoder.py"
_WIDTH = 160
#: Greedy tokens after each prompt, which are the first tokens of each window.
STEPS, PROMPT = 32, 24


class Subject(NamedTuple):
    """A model. folder: None for random weights, in a GGUF file that is made. rounds: what
    transformers' own code for it rounds. kinds: types of GGUF files of the same weights, with the
    encoding that `convert_to_gguf` writes each for."""

    name: str
    folder: Path | None
    rounds: str
    kinds: dict[str, str]


SUBJECTS = (
    Subject("BitNet b1.58's layout, 1.8 million parameters, trained", TINY, "int8 activations",
            {"TQ2_0": "two_bit"}),
    Subject("Qwen3's layout with a scale for 128 inputs, 0.6 million parameters, trained",
            ROOT / "tests" / "checkpoints" / "tiny-qwen3", "nothing", {"Q2_0": "two_bit"}),
    Subject("Llama's layout, 3 million parameters, random", None, "nothing",
            {"TQ2_0": "two_bit", "TQ1_0": "base3"}),
)  # fmt: skip
#: Of the random one; all its rows are whole blocks of 256.
LAYOUT = Config(
    hidden=256, ffn=512, layers=4, heads=4, kv_heads=4, head_dim=64, vocabulary=1024, context=512,
)  # fmt: skip


def measure(engine: Forward, texts: list[list[int]], steps: int, prompt: int) -> dict[str, Any]:
    """Its losses, the likeliest token at each place, and its greedy tokens after each prompt."""
    losses: list[float] = []
    likeliest: list[int] = []
    greedy = []
    for tokens in texts:
        logits = engine.logits(tokens)
        losses += negative_log_likelihoods(logits[:-1], tokens[1:])
        likeliest += logits[:-1].argmax(axis=1).tolist()
        found = list(tokens[:prompt])
        for _ in range(steps):
            found.append(int(engine.logits(found)[-1].argmax()))
        greedy.append(found[prompt:])
    return {"losses": losses, "likeliest": likeliest, "greedy": greedy}


def row(engine: Forward, found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """What is stored of an engine. asked: what was found of the engine that it is held against."""
    alike = np.equal(found["likeliest"], asked["likeliest"])
    both = list(zip(found["greedy"], asked["greedy"], strict=True))
    same = sum(int(np.cumprod(np.equal(*pair)).sum()) for pair in both)
    return {
        "engine": engine.name, "rounds": engine.rounds, "perplexity": perplexity(found["losses"]),
        "likeliest": int(alike.sum()), "positions": len(alike), "greedy": same,
        "asked": sum(len(one) for one, _ in both),
    }  # fmt: skip


@contextmanager
def source_of(subject: Subject) -> Iterator[Path]:
    """The folder of a model, or the file of a random one."""
    if subject.folder:
        yield subject.folder
        return
    with tempfile.TemporaryDirectory() as folder:
        layout, _ = random_gguf.for_llama_cpp(LAYOUT, "tq2_0", "f16")
        with random_gguf.random_gguf(Path(folder), layout, "tq2_0", "f16") as path:
            yield path


def engines_of(
    subject: Subject, source: Path, threads: int, left_out: list[str]
) -> Iterator[Forward]:
    """Those that can run a model here, the one that others are held against first; what cannot
    goes to `left_out`."""
    context = open_checkpoint(source).config.context

    def peer(make: Callable[..., Forward], *arguments: Any) -> Iterator[Forward]:
        try:
            yield make(*arguments)
        except LeftOut as error:
            left_out.append(f"{subject.name}: {error}")

    yield from peer(engines.transformers, source, subject.rounds, threads)
    yield from engines.ours(source, threads)
    with tempfile.TemporaryDirectory() as folder:
        for kind, encoding in subject.kinds.items():
            path = Path(folder) / f"{kind}.gguf"
            convert_to_gguf(source, path, encoding)
            yield from peer(engines.llama_cpp, path, kind, context, threads)


def compare(
    subject: Subject, source: Path, texts: list[list[int]], threads: int, left_out: list[str],
    steps: int = STEPS, prompt: int = PROMPT,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows of a model, each held against the first."""
    asked: dict[str, Any] = {}
    for engine in engines_of(subject, source, threads, left_out):
        found = measure(engine, texts, steps, prompt)
        asked = asked or found
        yield row(engine, found, asked)


def texts_of(subject: Subject, source: Path, text: str, count: int) -> list[list[int]]:
    """Windows of tokens of a text, as many as its context holds each; random ones for random
    weights."""
    checkpoint = open_checkpoint(source)
    context = checkpoint.config.context
    if not subject.folder:
        random = np.random.default_rng(0)
        found: list[list[int]] = random.integers(LAYOUT.vocabulary, size=(count, context)).tolist()
        return found
    cut = windows(checkpoint.tokenizer(), text, context)
    return [each for each in cut if len(each) == context][:count]


def main(argv: Sequence[str] | None = None) -> int:
    """0 if all went well, 2 with one line for bad arguments or results."""
    parser = command.make_parser("bench.correctness", __doc__)
    parser.add_argument("--windows", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all")
    parser.add_argument("--draw", action="store_true", help="write the page again, compute nothing")
    parser.add_argument("--output", type=Path, default=_FOLDER, metavar="DIR", help="for the JSON")
    arguments = parser.parse_args(argv)
    try:
        if not arguments.draw:
            if arguments.windows < 1:
                raise ValueError(f"--windows {arguments.windows}: expected 1 or more")
            _compute(arguments.output, arguments.windows, arguments.threads)
        print(page.write(arguments.output))
    except (ResultsError, ValueError, OSError) as error:
        print(f"bench.correctness: {error}", file=sys.stderr)
        return 2
    return 0


def _compute(folder: Path, count: int, threads: int | None) -> None:
    threads = check_threads(threads or default_threads())
    console = command.make_console(_WIDTH)
    command.introduce(console, folder, [threads])
    source = (Path(sysconfig.get_path("stdlib")) / HELD_OUT).read_text("utf-8")
    left_out: list[str] = []
    models = []
    for subject in SUBJECTS:
        with source_of(subject) as path:
            texts = texts_of(subject, path, source, count)
            rows = []
            for found in compare(subject, path, texts, threads, left_out):
                console.print(f"{subject.name}: {found}", highlight=False)
                rows.append(found)
        place = subject.folder and subject.folder.relative_to(ROOT).as_posix()
        models.append({
            "model": subject.name, "folder": place, "windows": len(texts),
            "context": len(texts[0]), "rows": rows,
        })  # fmt: skip
    command.tell(console, "left out", left_out)
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / CORRECTNESS_FILE, {
        **envelope(CORRECTNESS_FORMAT), "threads": threads, "text": HELD_OUT,
        "sha256": hashlib.sha256(source.encode()).hexdigest(), "prompt": PROMPT, "steps": STEPS,
        "models": models, "left_out": left_out,
    })  # fmt: skip
