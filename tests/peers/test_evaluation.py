"""Tasks of lm-evaluation-harness, from local files: the scores are those of transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ternops.__main__ import main
from ternops.decoder import Model, open_checkpoint
from tests.helpers import trained

pytestmark = pytest.mark.peers

TASKS = {
    "local_choice": """
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "local_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{context}}{{choices[0]}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]
""",
    "local_answer": """
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval", reason="lm-eval is not installed (ternops[eval])")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of tasks: lines of a text, and which of four lines follows them."""
    made = tmp_path_factory.mktemp("tasks")
    decode = open_checkpoint(trained.FOLDER).tokenizer().decode
    lines = [line for text in trained.texts()[:3] for line in decode(text).splitlines(True)]
    random, rows = np.random.default_rng(0), []
    for at in random.permutation(len(lines) - 6)[:12].tolist():
        label = int(random.integers(4))
        choices = [lines[other] for other in random.integers(len(lines), size=4)]
        choices[label] = lines[at + 5]
        rows.append({"context": "".join(lines[at : at + 5]), "choices": choices, "label": label})
    data = made / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        (made / f"{name}.yaml").write_text(f"task: {name}\ntest_split: test\n{source}{task}")
    return made


def evaluate(lm_eval, folder, model, **settings):
    """task -> metrics, and task -> what the model gave for each question."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, **settings
    )
    given = {
        name: [each["resps"] for each in sorted(rows, key=lambda row: row["doc_id"])]
        for name, rows in found["samples"].items()
    }
    return found["results"], given


@pytest.fixture(scope="module")
def theirs(lm_eval, transformers, torch, folder, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    settings = {"pretrained": str(trained.FOLDER), "dtype": "float32"}
    yield evaluate(lm_eval, folder, "hf", model_args=settings, device="cpu", batch_size=1)
    patch.undo()


def scores(given):
    """All log-likelihoods that a task asked for."""
    return np.array([float(part[0][0]) for row in given for part in row])


def test_the_scores_of_transformers(lm_eval, folder, theirs):
    """With activations as they are: each log-likelihood and each answer, and so each metric."""
    from ternops.evaluation import TernopsLM

    model = Model.from_pretrained(trained.FOLDER, weights="fp16", cache="fp32", threads=2)
    ours = evaluate(lm_eval, folder, TernopsLM(trained.FOLDER, model=model, batch_size=5))
    for metric in ("acc,none", "acc_norm,none"):
        assert ours[0]["local_choice"][metric] == theirs[0]["local_choice"][metric]
    assert ours[1]["local_answer"] == theirs[1]["local_answer"]
    # Float32 in another order.
    found, expected = (scores(each[1]["local_choice"]) for each in (ours, theirs))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for metric in ("word_perplexity,none", "byte_perplexity,none"):
        found, expected = (each[0]["local_text"][metric] for each in (ours, theirs))
        assert abs(found / expected - 1) < 1e-3


def test_int8_activations_are_within_noise(lm_eval, folder, theirs):
    """By the name that it is registered with, and its settings as a string."""
    import ternops.evaluation  # noqa: F401

    ours = evaluate(lm_eval, folder, "ternops", model_args=f"path={trained.FOLDER},threads=2")
    found, expected = (each[0]["local_choice"]["acc,none"] for each in (ours, theirs))
    assert abs(found - expected) < 0.1  # one question of twelve
    found, expected = (each[0]["local_text"]["byte_perplexity,none"] for each in (ours, theirs))
    assert abs(found / expected - 1) < 0.01


def test_the_command(lm_eval, folder, capfd, tmp_path, monkeypatch):
    """A table, and a file with the same figures; names of tasks; errors of one line."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    options = ["--include-path", str(folder), "--model", str(trained.FOLDER), "--threads", "2"]
    output = tmp_path / "out.json"
    arguments = ["eval", "--tasks", "local_choice,local_answer", "--limit", "3", *options]
    assert main([*arguments, "--output", str(output)]) == 0
    out = capfd.readouterr().out
    found = json.loads(output.read_text())["results"]
    assert set(found) == {"local_choice", "local_answer"}
    assert "local_choice" in out
    assert f"{found['local_choice']['acc,none']:.4f}" in out
    assert main(["eval", "--include-path", str(folder)]) == 0
    assert {*TASKS, "hellaswag"} <= set(capfd.readouterr().out.split())
    for changed, words in (
        (["--tasks", "nothing"], "--tasks: 'nothing' is no task"),
        (["--tasks", "hellaswag"], "--download fetches data that are not on the disk"),
        (["--tasks", "hellaswag", "--num-fewshot", "-1"], "--num-fewshot -1: expected 0 or more"),
        (["--tasks", "hellaswag", "--batch-size", "0"], "batch_size=0: expected 1 to 512"),
    ):
        assert main(["eval", *changed, *options]) == 2
        assert words in capfd.readouterr().err
