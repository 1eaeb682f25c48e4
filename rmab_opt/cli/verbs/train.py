"""``rmab-opt train``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmab_opt import registry
from rmab_opt.cli.common import RESEARCH, Due, Force, Jobs, Json, ModelName, Seconds, Sets, answer, load_model
from rmab_opt.errors import ModelError
from rmab_opt.progress import watch
from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.decisions import Model
    from rmab_opt.learning.learners import Lesson


@register("verb", "train", group=RESEARCH)
def train(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="The run's folder; an unfinished run in it goes on.")],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything random in the run.")] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many runs, each in a folder of its own under --out.")
    ] = 1,
    jobs: Jobs = None,
    seconds: Seconds = None,
    sets: Sets = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    policy: Annotated[str, typer.Option(help="What is trained; see `rmab-opt kinds learner`.")] = "q_network",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a Q-network whose argmax is this model's program, or what another learner trains."""
    due = Due(seconds, f"the run in {out} goes on")
    learner = registry.find("learner", policy)
    if device not in ("cpu", "cuda"):
        raise ModelError(f"--device {device}", "give cpu or cuda.")
    loaded = load_model(model, sets)
    if device == "cuda":
        from rmab_opt.learning.networks import demand_cuda

        demand_cuda()
    if seeds < 1:
        raise ModelError(f"--seeds {seeds}", "give at least 1.")
    if seeds != 1:
        _train_seeds(loaded, policy, out, range(seed, seed + seeds), device, jobs, due, as_json)
        return
    with watch("training", quiet=as_json) as tell:

        def show(event: dict[str, Any]) -> None:
            tell(f"training · {event['said']}", done=event["done"], total=event["total"])
            due(f"training: {event['done']} of {event['total']} done", event["done"] < event["total"])

        with due.work():
            lesson: Lesson = learner.make(loaded, out=out, seed=seed, device=device, on_event=show)
    rivals = ",".join([str(lesson.folder), *lesson.rivals])
    answer(as_json, lesson.summary, f"{lesson.text}\nnext: rmab-opt evaluate {model} --policies {rivals}")


def _learn(loaded: Model, policy: str, out: Path, device: str, seed: int) -> Lesson:
    lesson: Lesson = registry.find("learner", policy).make(loaded, out=out / f"seed-{seed}", seed=seed, device=device)
    return lesson


def _train_seeds(
    loaded: Model, policy: str, out: Path, seeds: range, device: str, jobs: int | None, due: Due, as_json: bool
) -> None:
    """Several runs side by side, each in a folder named after its seed."""
    from rmab_opt.parallel import pmap
    from rmab_opt.report import table_text

    rows = []
    with watch("training", len(seeds), quiet=as_json) as tell, due.work():
        for number, lesson in pmap(partial(_learn, loaded, policy, out, device), list(seeds), n_jobs=jobs):
            rows.append({"seed": seeds[number], **lesson.summary})
            tell(advance=1)
            due(f"{len(rows)} of {len(seeds)} runs done", len(rows) < len(seeds))
    rows.sort(key=lambda row: row["seed"])
    answer(as_json, rows, table_text([{key: row[key] for key in row if key != "weights_sha256"} for row in rows]))
