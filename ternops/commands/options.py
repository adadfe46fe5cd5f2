"""What the commands that use a model share: options, loading, progress, checks of text."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternops.absmean import METHODS
from ternops.encodings import TERNARY
from ternops.ranks import world

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ternops.decoder.config import Config
    from ternops.decoder.formats.checkpoint import Checkpoint
    from ternops.decoder.model import Model, Session

#: The name of --delta.
_TUNED = "tuned"
#: Tokens of a window of a text that shows what is active.
_CALIBRATED = 512

#: Called with the steps done and their number.
Progress = Callable[[int, int], None]


def add_model_options(
    parser: argparse.ArgumentParser,
    context: str = "most tokens of a text (default: the model's)",
    decodes: bool = True,
) -> None:
    """--model and how it is held and run. context: the help for --context. decodes: whether there
    are tokens one by one, and their logits."""
    parser.add_argument(
        "--model", metavar="MODEL",
        help="Hugging Face folder, packed file, folder of parts or GGUF file, or owner/name to "
        "download from the hub (default: the tiny model inside)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("ternary", "fp16", "half", *TERNARY), default="ternary",
        help="ternary: the best encoding here (default); fp16; half: floats that are not ternary, "
        "as they are; or that encoding",
    )  # fmt: skip
    if decodes:
        parser.add_argument(
            "--head", choices=("auto", "fp16", "int8", "screened"), default="auto",
            help="how the output head is held (default: auto)",
        )  # fmt: skip
    parser.add_argument(
        "--cache", choices=("fp16", "fp32", "int8", "int3"), default="fp16",
        help="how keys and values are held (default: fp16)",
    )  # fmt: skip
    if decodes:
        parser.add_argument(
            "--sparse", choices=("auto", "always", "never"), default="auto",
            help="leave out what ReLU^2 makes 0 (default: auto, where it takes less time)",
        )  # fmt: skip
    if decodes:
        parser.add_argument(
            "--delta",
            metavar="FILE",
            help="what python -m ternops delta wrote of a fine-tune of it",
        )
    parser.add_argument(
        "--lora", metavar="FILE",
        help="a LoRA adapter of peft's for it, adapter_model.safetensors or its folder",
    )  # fmt: skip
    add_quantize_option(parser)
    parser.add_argument(
        "--memory", metavar="SIZE",
        help="of a stack of residual blocks use as much as takes so many bytes, as 800MB or 1.2GB "
        "(default: all of it)",
    )  # fmt: skip
    parser.add_argument(
        "--layout", metavar="LAYOUT",
        help="of processes that mpirun has started, as tp=2,pp=2: two stages of a pipeline of two "
        "that share out every layer (default: by what gathering a vector takes)",
    )  # fmt: skip
    parser.add_argument("--context", type=int, metavar="N", help=context)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="default: all CPUs, fewer while others are busy"
    )


def add_quantize_option(parser: argparse.ArgumentParser) -> None:
    """Whether weights may be rounded that are not ternary."""
    parser.add_argument(
        "--quantize", choices=METHODS,
        help="round float weights that are not ternary, to one scale a matrix or one for so many "
        "inputs (default: they are an error)",
    )  # fmt: skip


def add_calibration_option(parser: argparse.ArgumentParser) -> None:
    """A text that shows what linear layers are multiplied with."""
    parser.add_argument(
        "--text", metavar="FILE",
        help="UTF-8 (-: stdin) that the model is to read first: inputs then count as much as they "
        "are active",
    )  # fmt: skip


def calibrate(arguments: argparse.Namespace, checkpoint: Checkpoint) -> dict[Any, Any] | None:
    """What comes into each linear layer with that text; None without one."""
    from ternops.decoder.calibration import activations
    from ternops.decoder.perplexity import windows

    if arguments.text is None:
        return None
    text = unmarked(read_text("--text", arguments.text))
    context = min(_CALIBRATED, checkpoint.config.context)
    found = activations(checkpoint, windows(checkpoint.tokenizer(), text, context))
    if not found:
        raise ValueError(f"--text: {arguments.text!r} is too short, expected a few tokens")
    return found


def chosen_context(arguments: argparse.Namespace, config: Config, default: int) -> int:
    """--context, `default` without it; ValueError for more than the model has."""
    context: int = default if arguments.context is None else arguments.context
    if not 2 <= context <= config.context:
        raise ValueError(f"--context {context}: expected 2 to the model's {config.context}")
    return context


def load_model(arguments: argparse.Namespace) -> Model:
    """The model of `add_model_options`, with a progress bar."""
    from ternops.decoder.model import Model

    delta = getattr(arguments, "delta", None)
    with progress("loading") as show:
        load: Any = Model.from_pretrained
        if world.size() > 1:
            from ternops.ranks.launch import load as load_together

            load = functools.partial(load_together, layout=arguments.layout)
        elif arguments.layout is not None:
            raise ValueError(
                f"--layout {arguments.layout}: expected more than one process, started by mpirun"
            )
        return load(
            arguments.model, weights=arguments.weights, head=arguments.head,
            cache=arguments.cache, sparse=arguments.sparse, context=arguments.context,
            threads=arguments.threads, quantize=arguments.quantize, memory=arguments.memory,
            deltas={} if delta is None else {_TUNED: delta}, lora=arguments.lora, progress=show,
        )  # fmt: skip


def start_session(model: Model) -> Session:
    """A session with --delta whose kernels are compiled, so that no token's time is that of the
    compiler."""
    from ternops.decoder.model import Session

    session = Session(model, delta=_TUNED if model.deltas else None)
    with progress("compiling") as show:
        show(0, 1)
        session.step(0)
        session.position = 0
        session.extend([0, 0], 1)  # --context is 2 at least
    session.position = 0
    return session


def describe(model: Model, session: Session | None = None) -> str:
    """Threads, weights, head and cache, for a line of figures."""
    text = (
        f"{model.threads} thread(s), {model.encoding} weights, {model.head.kind} head, "
        f"{model.cache} cache"
    )
    if session and session.screened:
        rows = session.rescored / session.screened
        text += f", {rows:.1f} of {model.config.vocabulary} rows rescored a token"
    if session and session.active_share < 1:
        text += f", {session.active_share:.1%} of the linear layers' weights active"
    if session and session.bytes_saved:
        rows, columns = session.shares_read
        text += f", {rows:.0%} of up's rows and {columns:.0%} of down's columns read"
    return text


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Gives a function that shows the progress on stderr."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ModuleNotFoundError:
        raise ModuleNotFoundError("rich is not installed: pip install 'ternops[llm]'") from None

    console = Console(stderr=True)
    bar = Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    task = bar.add_task(title, total=None)
    fifths = 0
    started = False

    def show(done: int, total: int) -> None:
        nonlocal fifths, started
        if console.is_terminal:
            if not started:
                bar.start()
                started = True
            bar.update(task, completed=done, total=total)
        elif fifths < done * 5 // total < 5:  # a bar needs a terminal; a log gets a few lines
            fifths = done * 5 // total
            console.print(f"{title}: {done * 100 // total}%", highlight=False)

    try:
        yield show
    finally:
        if started:
            bar.stop()


def checked(name: str, text: str) -> str:
    """The text, or ValueError if it is not valid UTF-8: other bytes arrive as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: not UTF-8 at character {error.start}") from None
    return text


def unmarked(text: str) -> str:
    """Without the byte order mark that some editors begin a file with, which is no text."""
    return text.removeprefix("\ufeff")


def read_text(name: str, path: str) -> str:
    """A file of UTF-8 text, stdin for "-"; ValueError, naming the option, if it is not one or
    cannot be read."""
    try:
        return (_stdin(name) if path == "-" else Path(path).read_bytes()).decode()
    except OSError as error:
        raise ValueError(f"{name}: {path!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {path!r} is not UTF-8 at byte {error.start}") from None


def target(option: str, name: str) -> Path:
    """The path of a file that can be written, which is tried; ValueError if it cannot."""
    from ternops.files import check_writable

    path = Path(name)
    try:
        if not name or path.is_dir():
            raise ValueError(f"{option} {name!r}: expected the name of a file")
        check_writable(path)
    except OSError as error:
        raise ValueError(f"{option} {name!r}: {error.strerror or error}") from None
    return path


def _stdin(name: str) -> bytes:
    if sys.stdin is None:
        raise ValueError(f"{name}: stdin is closed, expected a text there")
    return sys.stdin.buffer.read()


def add_control_option(parser: argparse.ArgumentParser) -> None:
    """Whether a text may hold control tokens."""
    parser.add_argument(
        "--no-control-tokens", action="store_true",
        help="read the names of control tokens in what is asked, as <|end_of_text|>, as any text",
    )  # fmt: skip


def encode_prompt(tokenizer: Tokenizer, prompt: str, context: int, name: str) -> list[int]:
    """The tokens of a prompt; ValueError, naming the option, for none, or more than the context
    holds."""
    tokens: list[int] = tokenizer.encode(prompt).ids
    if not tokens:
        raise ValueError(f"{name}: empty, expected at least one token")
    if len(tokens) > context:
        raise ValueError(f"{name}: {len(tokens)} tokens, the context holds {context}")
    return tokens


def check_known(name: str, tokenizer: Tokenizer, tokens: list[int], vocabulary: int) -> None:
    """Raises ValueError for a token that the tokenizer has and the model has not."""
    if tokens and max(tokens) >= vocabulary:
        text = tokenizer.id_to_token(max(tokens))
        raise ValueError(
            f"{name}: {text!r} is {max(tokens)} and to the model no token, expected 0 to "
            f"{vocabulary - 1}"
        )


def note(line: str) -> None:
    """Say something on stderr that is no result."""
    print(f"ternops: {line}", file=sys.stderr, flush=True)
