"""llama.cpp's decoder, through the low-level interface of the package llama-cpp-python.

What its own llama-bench does, with its defaults: random tokens, "pp N" in batches of up to 512 and
"tg N" one by one, each from an empty context; a thread pool that outlives the calls; a cache of
float16; flash attention as llama.cpp decides. Nothing is left to a GPU.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.engines import ggml, has_avx512, library

#: The longest batch that is computed at once.
BATCH = 512

#: GGML_MAX_N_THREADS; ggml aborts beyond.
_MAX_THREADS = 512
#: GGML_LOG_LEVEL_ERROR.
_ERROR = 4


def about() -> tuple[str, str]:
    """Version with backends and CPU features, and a remark on the build or "": one line each.

    Raises ImportError if llama-cpp-python is missing or broken.
    """
    llama = _load()
    features = llama.package.llama_print_system_info().decode().replace(" = 1", "")
    words = [word for word in features.split() if word not in ("|", ":")]
    folder = Path(llama.package.__file__).parent / "lib"
    libraries = sorted({path.name.split(".")[0] for path in folder.glob("libggml*")})
    version = (
        f"llama.cpp of llama-cpp-python {importlib.metadata.version('llama-cpp-python')}, "
        f"ggml {llama.version} ({' '.join(libraries)}), {' '.join(words)}"
    )
    remark = "built without AVX-512" if has_avx512() and "AVX512" not in words else ""
    return version, remark


class LlamaDecoder:
    """A GGUF file, loaded by llama.cpp.

    threads: 1 to 512, for prompts and for generating. context: the most tokens of a prompt or
    generation, itself at most the context that the file names. extra: whether llama.cpp may keep
    weights in the order that suits the CPU's instructions ("extra buffers").

    Raises ImportError as `about` does, ValueError for arguments out of range and for a file that
    llama.cpp does not load, RuntimeError if there is no memory for the context.
    """

    def __init__(self, path: Path, threads: int, context: int, extra: bool = True) -> None:
        _check("threads", threads, _MAX_THREADS)
        self._llama = llama = _load()
        package = llama.package
        with ExitStack() as stack:
            self._model = llama.load_model(path, extra)
            stack.callback(package.llama_model_free, self._model)
            _check("context", context, package.llama_model_n_ctx_train(self._model))
            pool = ggml.make_pool(llama.shared, threads)
            stack.callback(llama.shared.ggml_threadpool_free, pool)
            self._context = llama.make_context(self._model, threads, context)
            stack.callback(package.llama_free, self._context)
            llama.shared.llama_attach_threadpool(self._context, pool, None)
            self._release = stack.pop_all()
        self._most = context
        vocabulary = package.llama_vocab_n_tokens(package.llama_model_get_vocab(self._model))
        # As tokens stand in a batch: llama.cpp is given addresses into this array.
        self._tokens = np.random.default_rng(0).integers(0, vocabulary, context, np.int32)
        self._warm: set[int] = set()

    @property
    def nbytes(self) -> int:
        """Bytes of the model's tensors, the embedding among them."""
        return int(self._llama.package.llama_model_size(self._model))

    def prompt(self, tokens: int) -> float:
        """Seconds to process a prompt ("pp"), to the logits of its last token."""
        _check("tokens", tokens, self._most)
        whole, rest = divmod(tokens, BATCH)
        return self._time([BATCH] * whole + [rest] * (rest > 0))

    def generate(self, tokens: int) -> float:
        """Seconds to generate tokens one by one ("tg"), each with its logits."""
        _check("tokens", tokens, self._most)
        return self._time([1] * tokens)

    def close(self) -> None:
        """Let go of all memory; there is no call after this one."""
        self._release.close()
        # Using them again shall be an error here and not in llama.cpp.
        del self._model, self._context

    def _time(self, lengths: Sequence[int]) -> float:
        """Seconds of batches of these lengths in turn; one of a new length is run before."""
        if lengths[0] not in self._warm:
            self._run(lengths[:1])
            self._warm.add(lengths[0])
        return self._run(lengths)

    def _run(self, lengths: Sequence[int]) -> float:
        package, context = self._llama.package, self._context
        package.llama_memory_clear(package.llama_get_memory(context), False)
        batches = []
        position = 0
        for length in lengths:
            address = self._tokens[position:].ctypes.data_as(package.llama_token_p)
            batches.append(package.llama_batch_get_one(address, length))
            position += length
        start = time.perf_counter()
        for batch in batches:
            status = package.llama_decode(context, batch)
            package.llama_synchronize(context)
            if status:
                raise RuntimeError(f"llama_decode returned {status}")
        return time.perf_counter() - start


class _Llama:
    """The package, quiet, and the libraries behind it, which have thread pools."""

    def __init__(self) -> None:
        self.package = package = library("llama_cpp")
        self.shared = package.llama_cpp._lib  # finds the functions of libggml-cpu as well
        ggml.declare(
            self.shared, "ggml_threadpool_free", "ggml_threadpool_new", "ggml_version",
            "ggml_threadpool_params_init", "llama_attach_threadpool",
        )  # fmt: skip
        self.version = self.shared.ggml_version().decode()
        self._errors: list[str] = []
        self._callback = package.llama_log_callback(self._log)
        package.llama_log_set(self._callback, None)
        package.llama_backend_init()

    def load_model(self, path: Path, extra: bool) -> Any:
        parameters = self.package.llama_model_default_params()
        parameters.n_gpu_layers = 0
        if not extra:
            parameters.use_extra_bufts = False
        self._errors.clear()
        model = self.package.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise ValueError(f"llama.cpp does not load {str(path)!r}: {self._reason()}")
        return model

    def make_context(self, model: Any, threads: int, tokens: int) -> Any:
        parameters = self.package.llama_context_default_params()
        parameters.n_ctx = tokens
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.op_offload = False
        self._errors.clear()
        context = self.package.llama_init_from_model(model, parameters)
        if not context:
            raise RuntimeError(f"llama.cpp has no context of {tokens} tokens: {self._reason()}")
        return context

    def _log(self, level: int, text: bytes, data: object) -> None:
        if level == _ERROR:
            self._errors.append(text.decode(errors="replace").strip())

    def _reason(self) -> str:
        # The first error is the cause of the others.
        return self._errors[0] if self._errors else "it does not say why"


@cache
def _load() -> _Llama:
    try:
        return _Llama()
    except AttributeError as error:
        raise ImportError(f"llama-cpp-python: {error}") from None


def _check(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise ValueError(f"{name}: {value}, expected 1 to {most}")
