"""docs/REPRODUCTION.md says what a run's results say, and nothing else."""

import pytest

from bench.core import results
from bench.core.results import FP16, MODELLED, Results
from bench.pages import reproduction
from bench.published.paper import DECODE
from tests.bench.small_runs import row

ABOUT = {"arch": "x86", "cpu": "A CPU", "tier": "avx2", "command": "python -m bench.run",
         "commit": "abc"}  # fmt: skip


def pair(size, ratio, allowed, share=0.9, **fields):
    """An fp16 and a base3 row: `ratio` times faster, with `allowed` times fewer bytes."""
    total = 10**9
    base = row(size=size, engine=FP16, seconds=(ratio,), bytes_per_token=int(total * allowed),
               limit=1 / ratio / 0.95, **fields)  # fmt: skip
    return base, row(size=size, seconds=(1.0,), bytes_per_token=total, limit=1 / share)


def page(tmp_path, *rows, about=ABOUT):
    """What is written of these rows."""
    folder = tmp_path / "run"
    results.save(folder, Results(about, list(rows)))
    return reproduction.write(folder, tmp_path / "PAGE.md").read_text("utf-8")


def test_every_figure_is_that_of_the_rows(tmp_path):
    """The paper's, ours, what the bytes allow, and shares; sizes without rows are named."""
    text = page(tmp_path, *pair("700M", 5.0, 6.25), *pair("7B", 8.0, 8.1))
    assert "| 700M | 3.88x | 5.00x | 1.29 | 6.25x | 95% | 90% |" in text
    published = DECODE["x86"]["7B"]
    assert f"| 7B | {published.speedup:.2f}x | 8.00x |" in text
    assert "20% of what the bytes allow is lost" in text  # 5.00 of 6.25
    assert text.count("of what the bytes allow is lost") == 1
    (missing,) = (line for line in text.splitlines() if line.startswith("Not measured"))
    assert "125M" in missing
    assert "700M" not in missing
    assert "`python -m bench.run`, commit abc" in text


def test_a_modelled_baseline_is_named(tmp_path):
    """Where fp16 did not fit here, and where it did not fit there."""
    text = page(tmp_path, *pair("70B", 9.0, 9.0, kind=MODELLED))
    assert "| base3 measured / fp16 modelled |" in text
    assert "the paper has no fp16 figure" in text
    assert "fp16 is taken to be as fast as the bandwidth allows" in text


def test_nothing_to_write_is_one_line(tmp_path, capsys):
    """Of a folder without results, and of one without the paper's sizes."""
    assert reproduction.main([str(tmp_path)]) == 2
    results.save(tmp_path, Results(ABOUT, [row(size="2B4T")]))
    assert reproduction.main([str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "no size of the paper was measured" in lines[1]


@pytest.mark.parametrize("size", ["125M", "700M"])
@pytest.mark.parametrize("last_level", [32 << 20, None])
def test_the_cache_is_a_reason_where_layers_fit_it(tmp_path, size, last_level):
    """That of the machine of the results, not of the one that writes; none if they do not say."""
    text = page(tmp_path, *pair(size, 3.0, 3.6), about={**ABOUT, "last_level": last_level})
    fits = size == "125M" and last_level is not None
    assert ("could stay in the last-level cache (34 MB)" in text) == fits
