"""The HTML report of a run: what it says, what it escapes, and that a browser can sort it."""

import dataclasses
import json
import math
import re
import subprocess
from html.parser import HTMLParser

import pytest

from bench.core.results import FP16, MAX_SPREAD, Results
from bench.pages import report
from bench.published import paper
from tests.bench.run_results import ABOUT, made_up, written
from tests.helpers.browser import CHROMIUM

SIZES = ("350M", "700M", "100B")


class Page(HTMLParser):
    """Tables by the id of their section: lists of rows of texts; every tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.words = {}, [], []
        self._section, self._cell, self._quiet = "", None, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self._quiet = tag in ("script", "style")
        if tag == "section":
            self._section = attributes.get("id", "")
        elif tag == "tr":
            self.tables.setdefault(self._section, []).append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        self._quiet = False
        if tag in ("td", "th"):
            self.tables[self._section][-1].append(self._cell.strip())
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data
        if not self._quiet:
            self.words.append(data)

    def column(self, table, name):
        heading, *rows = self.tables[table]
        return [row[heading.index(name)] for row in rows]


def page_of(folder, results):
    path = report.write(written(folder, results))
    assert path == folder / "report.html"
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The report of `made_up(SIZES)`, whose pictures take long to draw."""
    folder = written(tmp_path_factory.mktemp("report"), made_up(SIZES))
    return report.write(folder).read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    """The same, read."""
    return Page(text)


@pytest.mark.slow
def test_every_row_is_there_with_its_figures(page):
    results = made_up(SIZES)
    for table, is_decode in (("decode", True), ("prefill", False)):
        heading, *rows = page.tables[table]
        expected = [row for row in results.rows if row.is_decode == is_decode]
        assert len(rows) == len(expected)
        for cells, row in zip(rows, expected, strict=True):
            shown = dict(zip(heading, cells, strict=True))
            assert (shown["size"], shown["engine"], shown["kind"], shown["test"]) == (
                row.size, row.engine, row.kind, row.test,
            )  # fmt: skip
            assert float(shown["tokens/s"]) == pytest.approx(row.speed, rel=5e-3)
            base = results.base_of(row)
            ratio = f"{row.over(base).median:.2f}x" if base else "-"
            assert shown["over fp16"] == ratio
            share = "-" if math.isnan(row.share) else f"{row.share:.1%}"
            assert shown["share of limit"] == share


@pytest.mark.slow
def test_what_the_bytes_allow_and_the_paper_stand_beside_ours(page):
    results = made_up(SIZES)
    heading, *rows = page.tables["decode"]
    found = {(row[0], row[1], row[2]): dict(zip(heading, row, strict=True)) for row in rows}
    (ours,) = results.find(size="700M", engine="base3", test="tg32", threads=2)
    base = results.base_of(ours)
    shown = found["700M", "base3", "2"]
    assert shown["bytes allow"] == f"{base.bytes_per_token / ours.bytes_per_token:.2f}x"
    assert shown["paper"] == f"{paper.speedup('x86', '700M'):.2f}x"
    assert float(shown["J/token"]) == pytest.approx(ours.joules, rel=5e-3)
    assert shown["energy"] == "measured"
    # The paper has nothing on llama.cpp's other types, nor on fp16 at 100B.
    assert found["700M", "llama.cpp Q4_0", "2"]["paper"] == "-"
    assert found["100B", "base3", "2"]["paper"] == "-"


@pytest.mark.slow
def test_large_spreads_are_marked(page):
    results = made_up(SIZES)
    wide = [row for row in results.rows if row.spread > MAX_SPREAD]
    marked = [cell for cell in page.column("decode", "spread") if cell.endswith("!")]
    assert marked == [f"{row.spread:.1%} !" for row in wide]
    assert len([tag for tag in page.tags if tag[1].get("class") == "warn"]) == len(wide) == 1


@pytest.mark.slow
def test_how_it_was_made_and_what_is_missing_is_told(page):
    words = " ".join("".join(page.words).split())
    for each in (*ABOUT["left_out"], ABOUT["commit"], ABOUT["command"], ABOUT["versions"]):
        assert each in words
    assert "32.0 GiB" in words
    assert "llama-cpp-python 0.3.16" in words
    assert {row[0] for row in page.tables["versions"][1:]} == {
        f"llama.cpp {kind}" for kind in ("F16", "TQ1_0", "TQ2_0", "Q4_0")
    }
    assert page.column("limits", "rate") == ["21.0", "42.1", "0.210"]
    assert page.column("products", "ms") == ["0.200", "3.000"]
    assert [tag[1]["id"] for tag in page.tags if tag[0] == "figure"] == [
        f"picture-{name}" for name in ("speedup", "threads", "share", "energy", "peers")
    ]


def test_lossless_rows_that_differ_stand_out(tmp_path):
    results = made_up(["350M"])
    results.about = json.loads(json.dumps(results.about))
    proof = results.about["lossless"]
    proof["lossless"] = False
    proof["table"][2] |= {"bit_identical": {"1": True, "2": False}, "perplexity": None}
    page = page_of(tmp_path, results)
    differing = page.column("lossless", "same bits, 2 thread(s)")
    assert [i for i, each in enumerate(differing) if each == "DIFFERENT"] == [2]
    assert set(page.column("lossless", "same bits, 1 thread(s)")) == {"yes"}
    assert page.column("lossless", "perplexity")[2] == "-"
    assert "NOT lossless" in "".join(page.words)


@pytest.mark.slow
def test_what_is_missing_or_odd_is_left_out_of_the_page(tmp_path):
    """Of run.json nothing but its format is needed, and nothing in it is trusted."""
    results = made_up(["700M"], threads=(2,), peers=False, joules=False)
    results.rows = [dataclasses.replace(r, limit=0, bytes_per_token=0) for r in results.rows]
    results.probes, results.about = [], {}
    page = page_of(tmp_path, results)
    assert set(page.tables) == {"decode", "prefill"}
    assert "J/token" not in page.tables["decode"][0]
    assert "unnamed CPU" in "".join(page.words)
    for odd in ("text", 3, None, [1, "x", {}], {"table": [{"bit_identical": 5}, 7], "tokens": "x"}):
        results.about = dict.fromkeys(
            ("limits", "products", "lossless", "left_out", "cpu", "memory", "arch", "load"), odd
        )
        page_of(tmp_path, results)
    results.about = {"limits": [{"what": 1, "rate": "x"}, {"rate": [2]}],
                     "products": [{"shape": ["a", None], "tokens": "1", "seconds": 0}]}  # fmt: skip
    page = page_of(tmp_path, results)
    assert page.column("products", "shape") == ["a x None"]


@pytest.mark.slow
def test_everything_is_escaped(tmp_path):
    """Markup in a name is text, wherever it comes from, and also inside of the pictures."""
    evil = "--><script>alert(1)</script>'\"<img src=x onerror=y>"
    results = made_up(["700M"])
    results.about = {
        **results.about, **dict.fromkeys(("cpu", "tier", "commit", "command", "versions"), evil),
        "left_out": [evil], "limits": [{"what": evil, "rate": 1.0, "unit": evil, "how": evil}],
        "lossless": {"table": [{"tier": evil, "encoding": evil, "bit_identical": {evil: True}}]},
        "products": [{"shape": [evil], "engine": evil, "version": evil, "remark": evil}],
    }  # fmt: skip
    results.rows = [
        dataclasses.replace(
            row, engine=evil if row.engine == "tl1" else row.engine, limited_by=evil, version=evil,
            energy=evil,
        )
        for row in results.rows
    ]  # fmt: skip
    page = page_of(tmp_path, results)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert evil in page.column("decode", "engine")
    assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(page, text):
    """No reference leaves the file, ids are unique, and the page forbids any request itself."""
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "image")
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
                assert value.startswith("#"), (tag, name, value)
                assert value[1:] in ids
            for target in re.findall(r"url\(([^)]*)\)", value or ""):
                assert target[:1] == "#"
                assert target[1:] in ids
    assert "@import" not in text
    policies = [a["content"] for t, a in page.tags if a.get("http-equiv")]
    assert policies[0].startswith("default-src 'none'")


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(tmp_path, capsys):
    first = report.write(written(tmp_path, made_up(["700M"]))).read_bytes()
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").read_bytes() == first


@pytest.mark.slow
def test_bad_results_are_one_line_and_leave_the_old_report(tmp_path, capsys):
    path = report.write(written(tmp_path, made_up(["700M"])))
    before = path.read_bytes()
    suite = (tmp_path / "decode.json").read_bytes()
    (tmp_path / "decode.json").write_bytes(suite[: len(suite) // 2])
    assert report.main([str(tmp_path)]) == 2
    (tmp_path / "decode.json").unlink()
    written(tmp_path, Results(dict(ABOUT)))
    assert report.main([str(tmp_path)]) == 2
    assert report.main([str(tmp_path / "nowhere")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line[:13] for line in lines] == ["bench.report:"] * 3
    assert "not complete" in lines[0]
    assert "no rows" in lines[1]
    assert path.read_bytes() == before


#: Clicks headings of the table of decoding, and writes down its columns after each click.
CLICKS = """
<script>
const table = document.querySelector("#decode table");
const seen = {};
function click(name, key) {
  const headings = Array.from(table.tHead.rows[0].cells);
  const column = headings.findIndex((each) => each.textContent.trim() === name);
  headings[column].querySelector("button").click();
  const rows = Array.from(table.tBodies[0].rows);
  seen[key] = [rows.map((row) => row.cells[column].textContent.trim()),
               headings.map((each) => each.getAttribute("aria-sort"))];
}
click("tokens/s", "up"); click("tokens/s", "down"); click("size", "size");
click("over fp16", "unknown"); click("over fp16", "unknown again"); click("engine", "engine");
const broken = [];
for (const each of document.querySelectorAll("svg")) {
  const box = each.getBoundingClientRect();
  if (box.width < 100 || box.height < 100) broken.push(each.getAttribute("aria-label"));
}
const loaded = performance.getEntriesByType("resource").map((each) => each.name);
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify({ seen, broken, loaded, wide });
document.body.append(result);
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed")
def test_a_browser_sorts_the_tables_and_asks_nobody(tmp_path, text):
    """In the window of a phone, over which the page does not reach out, either."""
    results = made_up(SIZES)
    copy = tmp_path / "clicked.html"
    copy.write_text(text.replace("</body>", CLICKS + "</body>"), "utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    match = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-2000:]
    found = json.loads(match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    seen = {key: column for key, (column, _) in found["seen"].items()}
    speeds = [float(each) for each in seen["up"]]
    assert speeds == sorted(speeds)
    assert len(speeds) == len([row for row in results.rows if row.is_decode])
    # As text, 100 would come before 9.
    assert max(speeds) > 100 > 10 > min(speeds)
    assert [float(each) for each in seen["down"]] == speeds[::-1]
    assert list(dict.fromkeys(seen["size"])) == list(SIZES)
    assert seen["engine"] == sorted(seen["engine"])
    unknown = len(results.find(engine=FP16, test="tg32"))
    for key in ("unknown", "unknown again"):
        assert seen[key][-unknown:] == ["-"] * unknown
        assert "-" not in seen[key][:-unknown]
    ratios = [float(each[:-1]) for each in seen["unknown"][:-unknown]]
    assert ratios == sorted(ratios)
    states = {key: [each for each in sorts if each] for key, (_, sorts) in found["seen"].items()}
    assert (states["up"], states["down"]) == (["ascending"], ["descending"])
    assert states["engine"] == ["ascending"]
    assert found["broken"] == []
    assert found["loaded"] == []
    assert found["wide"] <= 0
