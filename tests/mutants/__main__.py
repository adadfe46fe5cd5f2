"""``python -m tests.mutants``: change the sources a little, many times, and see whether tests fail.

cosmic-ray makes the mutants, in a copy of the tree; a random sample of them is tried, each with the
tests that run its line. A second call goes on where the first was stopped; where tests were changed
since, it tries what had survived again, and where the sources were, all. ``--table`` prints the
counts, ``--survivors`` the changes that no test has noticed. CONTRIBUTING says how many should be
killed; nothing here fails for it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

from tests.mutants import choose

ROOT = Path(__file__).parents[2]
#: Seconds after which a mutant counts as one that goes on for ever: its tests take choose.ENOUGH.
_TIMEOUT = 120
_PYTEST = (
    "-m pytest -q -x -p pytest_timeout -p xdist.plugin -p no:cacheprovider "
    "-W ignore --no-header --tb=line"
)
_SOURCES = "bench", "examples", "ternops"
#: As the database spells it.
_SURVIVED = TestOutcome.SURVIVED.name
#: Appended to the copy's ternops/simd/folder.py: what is mutated holds no kernel code, so that
#: compiled kernels stay those of the unchanged sources.
_SAME_KERNELS = """

_all_sources = _sources


def _sources() -> list[Path]:
    mutated = {names}
    return [each for each in _all_sources() if str(each.relative_to(PACKAGE.parent)) not in mutated]
"""


def prepare(work: Path) -> None:
    """Copy the tree, compile its kernels, and see which tests run which lines, and for how long."""
    tree = work / "tree"
    sources = work / "sources"  # what was copied, which a mutant changes
    if not sources.is_file() or sources.read_text() != _digest():
        shutil.rmtree(work, ignore_errors=True)
        _copy(tree)
        sources.write_text(_digest())
    changed = [path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("*.py"))
               if _differ(path, tree / path.relative_to(ROOT))]  # fmt: skip
    for path in changed:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tree / path)
        # Those of one file, or what many use.
        name = path.stem if path.name.startswith("test_") else "*"
        for report in (*work.glob(f"{name}.xml"), work / "coverage"):
            report.unlink(missing_ok=True)
    _run(tree, "-m", "ternops", "warmup")
    settings = work / "coverage.ini"
    settings.write_text(f"[run]\nsource = ternops\ndata_file = {work / 'coverage'}\n")
    for path in sorted(path for name in choose.TESTS for path in tree.glob(name)):  # no two alike
        part = work / path.stem
        if part.with_suffix(".xml").is_file():
            continue
        _run(
            tree, "-m", "coverage", "run", f"--rcfile={settings}", f"--data-file={part}.data",
            *_PYTEST.split(), "-p", "tests.mutants.contexts", f"--junitxml={part}.new",
            "-m", choose.SELECTED, str(path.relative_to(tree)),
        )  # fmt: skip
        part.with_suffix(".new").rename(part.with_suffix(".xml"))
    if not (work / "coverage").is_file():
        parts = map(str, work.glob("*.data"))
        _run(tree, "-m", "coverage", "combine", "--keep", f"--rcfile={settings}", *parts)
        for path in work.glob("*.sqlite"):
            _forget_survivors(path)


def _digest() -> str:
    """Of all that is copied but the tests, which may change one by one."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for name in _SOURCES:
        for path in sorted((ROOT / name).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _differ(one: Path, other: Path) -> bool:
    return not other.is_file() or one.read_bytes() != other.read_bytes()


def _forget_survivors(path: Path) -> None:
    """So that they are tried again: cosmic-ray's database has no function for it."""
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM work_results WHERE test_outcome = ?", (_SURVIVED,))


def _copy(tree: Path) -> None:
    """The sources and the tests, whose kernels' digest leaves out what is mutated."""
    tree.mkdir(parents=True)
    for name in (*_SOURCES, "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=_caches)
    shutil.copy2(ROOT / "pyproject.toml", tree)
    names = {str(path) for each in choose.modules(tree).values() for path in each}
    with open(tree / "ternops/simd/folder.py", "a") as file:
        file.write(_SAME_KERNELS.format(names=sorted(names)))


def _caches(folder: str, names: list[str]) -> list[str]:
    return [each for each in names if each in ("__pycache__", "compiled")]


def _environment(tree: Path) -> dict[str, str]:
    given = {
        "PYTHONPATH": str(tree),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TERNOPS_TUNING": "off",
    }
    return {**os.environ, **given}


def _run(tree: Path, *command: str) -> None:
    """Raises CalledProcessError where it fails; 5, of pytest, means that no test was selected."""
    done = subprocess.run([sys.executable, *command], cwd=tree, env=_environment(tree), check=False)
    if done.returncode not in (0, 5):
        raise subprocess.CalledProcessError(done.returncode, command)


def choose_mutants(work: Path, most: int, seed: int) -> Path:
    """The database of cosmic-ray, in which all mutants but the sample are skipped."""
    path = work / f"{most}-{seed}.sqlite"
    if path.is_file():
        return path
    tree, temporary = work / "tree", path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    os.chdir(tree)  # the names of modules are relative to it
    with use_db(str(temporary), WorkDB.Mode.create) as database:
        chosen: set[str] = set()
        found: list[Any] = []
        for group in choose.modules(tree).values():
            init(group, database, {})
            items = database.work_items
            chosen = {item.job_id for item in choose.sample(items, tree, most, seed)}
            found += [item for item in items if item.job_id in chosen]
        database.clear()
        database.add_work_items(found)
    temporary.rename(path)
    return path


def try_mutants(work: Path, path: Path, minutes: float) -> int:
    """Try those that have not been tried, until the time is over; gives how many are left."""
    tree = work / "tree"
    end = time.monotonic() + 60 * minutes
    os.chdir(tree)
    os.environ.update(_environment(tree))
    tests = choose.Tests(work / "coverage", work.glob("*.xml"), tree)
    with use_db(str(path), WorkDB.Mode.open) as database:
        pending = sorted(database.pending_work_items, key=lambda item: item.job_id)
        for number, item in enumerate(pending):
            if time.monotonic() > end:
                return len(pending) - number
            (mutation,) = item.mutations
            # What a run that was ended has left: the file as it was.
            shutil.copy2(ROOT / mutation.module_path, tree / mutation.module_path)
            nodes = tests.of(mutation.module_path, mutation.start_pos[0])
            if nodes:
                command = f"{shlex.quote(sys.executable)} {_PYTEST} {shlex.join(nodes)}"
                result = mutate_and_test(item.mutations, command, _TIMEOUT)
            else:
                result = WorkResult(
                    WorkerOutcome.NORMAL, "no test runs this line", TestOutcome.SURVIVED
                )
            database.set_result(item.job_id, result)
    return 0


def report(path: Path, survivors: bool) -> str:
    """The rows of docs/RELIABILITY.md, and, if asked for, what has survived."""
    of_module = {str(each): about for about, some in choose.modules(ROOT).items() for each in some}
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    lines = []
    with use_db(str(path), WorkDB.Mode.open) as database:
        for item, result in database.completed_work_items:
            (mutation,) = item.mutations
            about = of_module[str(mutation.module_path)]
            counts[about][0] += 1
            counts[about][1] += result.is_killed
            if survivors and not result.is_killed:
                place = f"{mutation.module_path}:{mutation.start_pos[0]}"
                changes = [
                    line for line in (result.diff or result.output or "").splitlines()
                    if line[:1] in "+-n" and line[:3] not in ("+++", "---")
                ]  # fmt: skip
                lines.append("\n".join([f"{place} {mutation.operator_name}", *changes]))
    total = [sum(each[i] for each in counts.values()) for i in (0, 1)]
    rows = ["| | mutants | killed | |", "| --- | ---: | ---: | ---: |"]
    for about, (tried, killed) in [*sorted(counts.items()), ("all", total)]:
        rows.append(f"| {about} | {tried} | {killed} | {100 * killed / max(1, tried):.0f}% |")
    return "\n".join([*sorted(lines), *rows])


def main() -> int:
    """0 if all of the sample was tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=150, help="mutants of each group of modules")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--work", type=Path, default=ROOT / ".mutants", help="folder of the copy")
    parser.add_argument("--table", action="store_true", help="print counts, try nothing")
    parser.add_argument("--survivors", action="store_true", help="print what was not noticed")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    path = work / f"{arguments.sample}-{arguments.seed}.sqlite"
    left = 0
    if arguments.table and not path.is_file():
        parser.error(f"--table: {path} is not there: call it without first")
    if not arguments.table:
        prepare(work)
        path = choose_mutants(work, arguments.sample, arguments.seed)
        left = try_mutants(work, path, arguments.minutes)
    print(report(path, arguments.survivors))
    if left:
        print(f"{left} are left: call it again", file=sys.stderr)
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
