"""The main job: is it lossless, how fast is ternary decoding here, and what does the paper say?

    python -m bench.run --arch auto --quick

proves the tiny checkpoint lossless, measures GEMV and decoding beside the read bandwidth of the
same run, prints the tables, and writes pyperf suites and the plot to results/<cpu>/.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import decoding, gemv, lossless, paper, plot
from bench.command import add_options, chosen_folder, chosen_threads, introduce, progress
from bench.measure import MOST_SHARE, Case, bandwidth, save_suite
from bench.shapes import QUICK, SIZES, host_arch
from bench.stats import speedup
from ternops.files import replaced

#: Weights of the GEMV measurement: more than any cache holds.
GEMV_BYTES = 512 << 20
#: A perplexity this much off the float64 forward's is an error, relative.
MOST_PERPLEXITY_DIFFERENCE = 1e-3


def main(argv: list[str] | None = None) -> int:
    """0 if all went well, 1 if a check failed, 2 for a wrong argument."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        arch = _check_arch(arguments.arch)
        threads = chosen_threads(arguments.threads)
        sizes = _check_sizes(arguments.sizes or (QUICK if arguments.quick else tuple(SIZES)))
        folder = chosen_folder(arguments.output)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    console = Console(stderr=False)
    introduce(console, folder, threads)
    tokens, rounds = (16, 7) if arguments.quick else (32, 15)
    failures = [
        *_lossless(console, folder, threads),
        *_gemv(console, folder, threads, rounds),
        *_decode(console, folder, arch, sizes, threads, tokens, rounds),
    ]
    for failure in failures:
        console.print(f"[red]failed[/red]: {failure}", highlight=False)
    return 1 if failures else 0


def _lossless(console: Console, folder: Path, threads: list[int]) -> list[str]:
    with progress(console) as advance_over:
        proof = lossless.prove(threads, advance_over("lossless", lossless.steps()))
    table = Table(
        title=f"Logits of {proof.tokens} tokens against the NumPy oracle", title_justify="left"
    )
    table.add_column("tier")
    for count in threads:
        table.add_column(f"{count} thread(s)")
    for tier, equal in proof.tiers.items():
        words = ("bit-identical" if equal[count] else "DIFFERENT" for count in threads)
        table.add_row(tier, *words)
    console.print(table)
    console.print(
        f"perplexity over {lossless.WINDOWS * proof.tokens} tokens: {proof.perplexity:.4f}, "
        f"float64 forward {proof.perplexity_float64:.4f} "
        f"(difference {proof.perplexity_difference:.3%})\n"
    )
    record = {
        "tokens": proof.tokens,
        "bit_identical": proof.tiers,
        "perplexity": proof.perplexity,
        "perplexity_float64": proof.perplexity_float64,
    }
    with replaced(folder / "lossless.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    failures = [] if proof.lossless else ["logits differ from the NumPy oracle's"]
    if proof.perplexity_difference > MOST_PERPLEXITY_DIFFERENCE:
        failures.append(f"perplexity is {proof.perplexity_difference:.3%} off the float64 forward")
    return failures


def _gemv(console: Console, folder: Path, threads: list[int], rounds: int) -> list[str]:
    with progress(console) as advance_over:
        advance = advance_over("GEMV", gemv.steps(threads, rounds))
        results = gemv.measure(GEMV_BYTES, threads, rounds, advance)
    table = Table(title=f"GEMV, {GEMV_BYTES >> 20} MiB of weights", title_justify="left")
    for column in ("engine", "threads", "GB/s", "spread", "read bandwidth", "share"):
        table.add_column(column, justify="right")
    cases: list[Case] = []
    failures = []
    for count, (kernels, probes) in results.items():
        limit = bandwidth(probes)
        for case in kernels:
            speed = GEMV_BYTES / case.median
            share = speed / limit
            table.add_row(
                case.metadata["ternops_engine"], str(count), f"{speed / 1e9:.1f}",
                f"{case.spread:.1%}", f"{limit / 1e9:.1f} GB/s", f"{share:.1%}",
            )  # fmt: skip
            if share > MOST_SHARE:
                failures.append(f"{case.name}: {share:.1%} of the limit; the probe missed it")
        cases += [*kernels, *probes]
    console.print(table, "")
    save_suite(folder / "gemv.json", cases)
    return failures


def _decode(
    console: Console, folder: Path, arch: str, sizes: list[str], threads: list[int], tokens: int,
    rounds: int,
) -> list[str]:  # fmt: skip
    rows: list[decoding.Row] = []
    with progress(console) as advance_over:
        for size in sizes:
            advance = advance_over(f"decode {size}", decoding.steps(size, threads, rounds))
            try:
                rows += decoding.measure(size, threads, tokens, rounds, advance)
            except MemoryError as error:
                console.print(f"[yellow]left out[/yellow]: {error}", highlight=False)
    if not rows:
        return ["no size was measured"]
    console.print(_decode_table(rows, arch, tokens), "", _breakdown_table(rows), "")
    save_suite(folder / "decode.json", [case for row in rows for case in (row.case, *row.probes)])
    console.print(f"plot: {plot.draw(folder)}", highlight=False)
    return decoding.check_limits(rows)


def _decode_table(rows: list[decoding.Row], arch: str, tokens: int) -> Table:
    table = Table(
        title=f"Decoding {tokens} tokens from an empty context, batch 1", title_justify="left"
    )
    for column in ("size", "threads", "engine", "MB/token", "tokens/s", "spread", "share of read",
                   "speed-up", "bytes allow", "paper"):  # fmt: skip
        table.add_column(column, justify="right")
    base: dict[tuple[str, int], decoding.Row] = {
        (row.size, row.threads): row for row in rows if row.engine == "fp16"
    }
    for row in rows:
        ratio = allowed = published = ""
        if row.engine != "fp16":
            fp16 = base[row.size, row.threads]
            ratio = f"{speedup(fp16.case.values, row.case.values).median:.2f}x"
            allowed = f"{fp16.bytes_per_token / row.bytes_per_token:.2f}x"
            figure = paper.speedup(arch, row.size)
            published = f"{figure:.2f}x" if figure else "-"
        spread = row.case.spread
        table.add_row(
            row.size, str(row.threads), row.engine, f"{row.bytes_per_token / 1e6:.1f}",
            f"{1 / row.case.median:.1f}", f"{spread:.1%}{' !' if spread > 0.1 else ''}",
            f"{row.share:.1%}", ratio, allowed, published,
        )  # fmt: skip
    return table


def _breakdown_table(rows: list[decoding.Row]) -> Table:
    table = Table(title="Where a token's time goes, thread 0, ms", title_justify="left")
    for column in ("size", "threads", "engine", "token", *rows[0].breakdown, "bytes / bandwidth"):
        table.add_column(column, justify="right")
    for row in rows:
        parts = (f"{1e3 * seconds:.3f}" for seconds in row.breakdown.values())
        table.add_row(
            row.size, str(row.threads), row.engine, f"{1e3 * row.case.median:.3f}", *parts,
            f"{1e3 * row.bytes_per_token / row.limit:.3f}",
        )  # fmt: skip
    return table


def _check_arch(arch: str) -> str:
    host = host_arch()
    if arch not in ("auto", host):
        raise ValueError(
            f"--arch {arch}: this machine is {host}; figures for {arch} will come from the cost "
            "model, which does not exist yet: nothing here can measure them"
        )
    return host


def _check_sizes(sizes: tuple[str, ...] | list[str]) -> list[str]:
    for size in sizes:
        if size not in SIZES:
            raise ValueError(f"--sizes {size}: expected some of {', '.join(SIZES)}")
    return list(dict.fromkeys(sizes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--arch", choices=("auto", "x86", "arm"), default="auto")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, in minutes")
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", help=", ".join(SIZES))
    add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
