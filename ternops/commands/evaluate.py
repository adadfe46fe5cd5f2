"""``python -m ternops eval``: tasks of lm-evaluation-harness, without the network."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ternops.commands import options
from ternops.files import replaced


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "eval", help="scores on tasks of lm-evaluation-harness",
        description="Scores of a model on tasks of lm-evaluation-harness (pip install "
        "'ternops[eval]'). Data that a task needs are taken from the disk, unless --download says "
        "otherwise. Without --tasks it prints the names of all tasks.",
    )  # fmt: skip
    parser.add_argument("--tasks", metavar="NAMES", help="names, separated by commas")
    parser.add_argument(
        "--include-path", metavar="FOLDER", help="a folder with further tasks, YAML files"
    )
    parser.add_argument(
        "--num-fewshot", type=int, metavar="N", help="examples before a question (the task's)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="of each task the first N questions")
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="answers at a time (default: 8)"
    )
    parser.add_argument("--chat", action="store_true", help="ask by the chat template of the model")
    parser.add_argument("--download", action="store_true", help="fetch data that is not there")
    parser.add_argument("--output", metavar="FILE", help="write all figures there, as JSON")
    options.add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        options.target("--output", arguments.output)
    if not arguments.download:  # before what reads it is imported
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import make_table
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'ternops[eval]'"
        ) from None

    manager = TaskManager(include_path=arguments.include_path)
    if arguments.tasks is None:
        print("\n".join(manager.all_tasks))
        return
    names = [name.strip() for name in arguments.tasks.split(",")]
    for name in names:
        if not manager.match_tasks([name]):
            raise ValueError(
                f"--tasks: {name!r} is no task, expected one of those that eval prints"
            )
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit {arguments.limit}: expected 1 or more")

    if arguments.num_fewshot is not None and arguments.num_fewshot < 0:
        raise ValueError(f"--num-fewshot {arguments.num_fewshot}: expected 0 or more")

    from ternops.evaluation import TernopsLM

    model = TernopsLM(
        arguments.model, model=options.load_model(arguments), quantize=arguments.quantize,
        batch_size=arguments.batch_size,
    )  # fmt: skip
    try:
        found = simple_evaluate(
            model, tasks=names, task_manager=manager, num_fewshot=arguments.num_fewshot,
            limit=arguments.limit, apply_chat_template=arguments.chat, log_samples=False,
            bootstrap_iters=1000,
        )  # fmt: skip
    except ConnectionError as error:
        if arguments.download:
            raise
        raise ValueError(f"{error}; --download fetches data that are not on the disk") from None
    print(make_table(found))
    if "groups" in found:
        print(make_table(found, "groups"))
    if arguments.output is not None:
        text = json.dumps({key: found[key] for key in ("results", "versions", "n-shot")}, indent=2)
        with replaced(Path(arguments.output)) as path:
            path.write_text(text + "\n")
