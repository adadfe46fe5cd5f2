"""docs/SCALING.md says what is computed from links.json and the shipped links."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.core.envelope import save_json
from bench.core.errors import ResultsError
from bench.core.links import LINKS_FILE, LINKS_FORMAT, MeasuredLink, load_links
from bench.pages import ranks
from ternops.cost.known_links import shipped
from ternops.cost.layouts import SIZES
from ternops.cost.link import Link
from ternops.cost.measured_link import ELEMENTS
from ternops.cost.profile import parse
from tests.helpers.profiles import PROFILE, figure

ROOT = Path(__file__).parents[3]
LINK = {
    "name": "1ms,1Gbit/s", "asked": {"latency": 1e-3, "bandwidth": 125e6, "by": "relay"},
    "ranks": 2, "latency": 1.1e-3, "bandwidth": 120e6, "barrier": 1.2e-3,
    "gathers": [1e-3 * at for at in range(1, len(ELEMENTS) + 1)],
}  # fmt: skip


def stored(folder, **changed):
    save_json(folder / LINKS_FILE, {
        "format": LINKS_FORMAT, "cpu": "a CPU", "tier": "a tier", "commit": "abc",
        "profile": {**PROFILE, "memory": figure(32, "GB")}, "links": [LINK], "left_out": [],
        **changed,
    })  # fmt: skip


def test_the_page_has_every_layout_and_link(tmp_path, monkeypatch):
    """And what was measured beside what is predicted of it."""
    monkeypatch.setattr(ranks, "RANKS", (1, 2, 4))
    stored(tmp_path, left_out=["5us,1Gbit/s: too fast"])
    page, *pictures = ranks.write(tmp_path, tmp_path / "PAGE.md")
    text = page.read_text("utf-8")
    for size in ("7B", "70B", "175B"):
        assert sum(f"| {size} | {name} |" in text for name in ranks.LINKS) == 4
    assert "| 1ms,1Gbit/s | relay | 1100 | +10.0% | 120 | -4.0% | 1200 | 1100 |" in text
    assert "| 10240 | 1000.0 | 1142.7 |" in text
    assert "Left out: 5us,1Gbit/s: too fast." in text
    assert sorted(each.name for each in pictures) == [
        "ranks-batch.png", "ranks-batch.svg", "ranks-time.png", "ranks-time.svg", "ranks.png",
        "ranks.svg",
    ]  # fmt: skip
    # Of 1T no rank of four has memory for its part: it has no row, and stops no page.
    assert "| 1T | IB |" not in text


def test_decoding_is_beside_what_is_predicted_of_it(tmp_path):
    """The median of rounds; ranks are on this machine, with the gathers that were measured."""
    decoding = {
        "encoding": "base3", "context": 20, "size": "700M",
        "seconds": {"1 thread": [0.2, 0.1, 0.4], "1ms,1Gbit/s": [1.0]},
    }  # fmt: skip
    stored(tmp_path, decoding=decoding)
    text = ranks._decoded(*load_links(tmp_path)).markdown
    rows = [line.split("|") for line in text.splitlines()[2:]]
    assert [row[1].strip() for row in rows] == ["1 thread", "2 ranks, 1ms,1Gbit/s"]
    assert [row[2].strip() for row in rows] == ["200.00", "1000.00"]
    assert rows[0][3].strip() == "200.0 100.0 400.0"
    for row in rows:
        predicted, error = (float(row[at].strip(" %")) for at in (4, 5))
        assert float(row[2]) / predicted - 1 == pytest.approx(error / 100, rel=1e-2)
    # Four gathers a layer, and that of the logits, each of at least the shortest one measured.
    assert float(rows[1][4]) > 1e3 * LINK["gathers"][0] * 4 * SIZES["700M"].layers


def test_rows_and_columns():
    """Four gathered vectors a layer, or two sums over ranks and two agreements before them."""
    config = SIZES["7B"]
    late, slow = Link("late", 1e-3, 1e18), Link("slow", 1e-15, 1e6)
    assert ranks.by_rows_s(config, late, 8) == pytest.approx(32 * 4 * 3e-3)
    assert ranks.by_columns_s(config, late, 8) == pytest.approx(32 * 2 * 9e-3)
    by_rows, by_columns = ranks._bytes(config)
    assert ranks.by_rows_s(config, slow, 8) == pytest.approx(by_rows / 1e6)
    assert ranks.by_columns_s(config, slow, 8) == pytest.approx(by_columns / 1e6, rel=1e-2)
    assert by_rows / by_columns == pytest.approx((3 * 4096 + 12032) / (4 * 4096))


def test_a_curve_begins_where_there_is_memory():
    machine = parse({**PROFILE, "memory": figure(8, "GB")}, "x.toml")
    found = ranks.curve("70B", machine, shipped()["IB"], 1).found
    assert [each.layout.ranks for each in found][:2] == [2, 4]


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"links": [{**LINK, "gathers": [1.0]}]}, "with gathered vectors of every size"),
     ({"links": [{"name": "x"}]}, "expected what bench.links writes"),
     ({"profile": {}}, "expected what bench.links writes"), ({"links": []}, "expected some")],
)  # fmt: skip
def test_other_files_are_one_line(tmp_path, changed, words, capsys):
    stored(tmp_path, **changed)
    with pytest.raises(ResultsError, match=words):
        load_links(tmp_path)
    assert ranks.main([str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_predictions_of_a_measured_link():
    found = MeasuredLink(**{**LINK, "gathers": tuple(LINK["gathers"])})
    assert found.predicted[0] == pytest.approx(1.1e-3 + 4 * ELEMENTS[0] / 2 / 120e6)
    assert found.predicted_barrier == 1.1e-3
    assert found.error("latency") == pytest.approx(0.1)


def test_the_committed_page_is_that_of_the_committed_results(tmp_path):
    """Written anew it is the same but for where its pictures lie."""
    folder = ROOT / "results" / "links"
    _, machine, links = load_links(folder)
    text = (ROOT / "docs" / "SCALING.md").read_text("utf-8")
    assert f"{1e6 * links[1].latency:.4g}" in text
    assert ranks._measured(links).markdown in text
    assert ranks._gathered(links).markdown in text
    assert ranks._powered(shipped()["10GbE"])[1].markdown in text
    assert machine.name in text
