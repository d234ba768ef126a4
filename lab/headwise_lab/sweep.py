"""Running a study's trials one after the other: what is done is skipped, what fails is recorded, Ctrl-C is safe.

Where whole methods are compared, one that cannot be run at a budget or on a model says so in the record of its trial,
and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headwise.errors import BudgetError, DataError, HeadwiseError, ModelError
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise_lab.benchmarks import Benchmark, Question, benchmark
from headwise_lab.data import questions_of
from headwise_lab.inputs import Inputs
from headwise_lab.models_io import Loaded
from headwise_lab.store import Store
from headwise_lab.studies import Case, recipes
from headwise_lab.tally import Tally, headline
from headwise_lab.trial import TIMED_BATCHES, Setting, check, head_of_record, identity, run_trial


@attrs.frozen(kw_only=True, eq=False)
class Sweep:
    """A study about to be run: model, cases, and what holds for all of them.

    ``may_refuse``: a recipe that cannot meet a budget, or not with this model, is left out with its reason on record;
    else nothing is run.
    """

    loaded: Loaded
    cases: Sequence[Case]
    store: Store
    study: str
    seed: int = 0
    limit: int | None = None
    batch: int = 16
    data: Path | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    timed_batches: int = TIMED_BATCHES
    may_refuse: bool = False

    def setting(self, recipe: Recipe) -> Setting:
        """The trial of one recipe."""
        return Setting(
            recipe=recipe,
            seed=self.seed,
            limit=self.limit,
            study=self.study,
            data=self.data,
            timed_batches=self.timed_batches,
        )

    def questions(self, name: str) -> tuple[Benchmark, list[Question]]:
        """A benchmark and what is asked of it."""
        found = benchmark(name)
        return found, questions_of(found, data=self.data, limit=self.limit, seed=self.seed)


Outlook = PruningPlan | BudgetError
"""What a recipe would do, or why it cannot."""


@attrs.frozen(eq=False)
class Job:
    """One case about to be run."""

    benchmark: str
    recipe: Recipe
    plan: Outlook

    @property
    def label(self) -> str:
        """The trial in a few words: benchmark, budget, and the recipe, or the strategies that have a say."""
        recipe, plan = self.recipe, self.plan
        if isinstance(plan, BudgetError) or (recipe.name and plan.stages):
            return f"{self.benchmark}, {recipe.budget.text}, {recipe.name or recipe.text}"
        if not plan.stages:
            return f"{self.benchmark}, unpruned"
        words = [self.benchmark, recipe.budget.text, recipe.strategies["token_pruning"].text]
        if any(stage.reads_attention for stage in plan.stages):
            words += [recipe.strategies[hook].text for hook in ("head_scoring", "head_count", "query_selection")]
        return ", ".join(words)


def sweep(given: Sweep, console: Console) -> Tally:
    """Run every case that is not done yet; all recipes and questions are looked at before the first trial."""
    built = recipes(given.cases, **given.settings)
    plans = [_plan(given, recipe) for recipe in built]
    _check_any_left(plans)
    asked = {name: given.questions(name) for name in dict.fromkeys(case.benchmark for case in given.cases)}
    total = sum(len(asked[case.benchmark][1]) for case in given.cases)
    jobs = [Job(case.benchmark, *made) for case, made in zip(given.cases, zip(built, plans, strict=True), strict=True)]
    with _progress(console) as progress:
        bar = Bar(progress, len(jobs), total)
        try:
            for name, members in groupby(jobs, key=lambda job: job.benchmark):
                inputs = Inputs(given.loaded, *asked[name], given.batch)
                for job in members:
                    _run_one(given, job, inputs, bar)
        except KeyboardInterrupt:
            bar.say(f"Stopped; finished trials are in {given.store.folder}, run again to go on.")
            raise
    return bar.tally


class Bar:
    """The progress of a sweep, in questions, and its tally."""

    def __init__(self, progress: Progress, trials: int, questions: int) -> None:
        self.tally = Tally()
        self._progress, self._trials, self._number, self._answered = progress, trials, 0, 0
        self._task = progress.add_task("", total=questions)

    def start(self, name: str) -> None:
        """The next trial begins."""
        self._number += 1
        self._progress.update(self._task, description=f"{self._number}/{self._trials} {name}")

    def advance(self, rows: int) -> None:
        """So many questions of the running trial have been answered."""
        self._progress.advance(self._task, rows)

    def end(self, questions: int) -> None:
        """The running trial is over, however many of its ``questions`` were answered."""
        self._answered += questions
        self._progress.update(self._task, completed=self._answered)

    def say(self, sentence: str) -> None:
        """Print above the bar."""
        self._progress.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _plan(given: Sweep, recipe: Recipe) -> Outlook:
    try:
        return check(recipe, given.loaded.geometry)
    except BudgetError as error:
        if given.may_refuse:
            return error
        raise


def _check_any_left(plans: Sequence[Outlook]) -> None:
    """Raise the reason why nothing can be pruned, where no recipe can meet its budget."""
    reasons = [plan for plan in plans if isinstance(plan, BudgetError)]
    if reasons and not any(isinstance(plan, PruningPlan) and plan.stages for plan in plans):
        raise reasons[0]


def _run_one(given: Sweep, job: Job, inputs: Inputs, bar: Bar) -> None:
    setting, name, plan = given.setting(job.recipe), job.label, job.plan
    bar.start(name)
    if given.store.done(identity(setting, inputs)):
        bar.tally.found += 1
    elif isinstance(plan, BudgetError):
        _refuse(given, job, plan, inputs, bar)
    else:
        try:
            record, outcomes = run_trial(setting, inputs, bar.advance)
        except DataError:  # this would befall every other trial too
            raise
        except ModelError as error:  # and so would this, unless it is what the method looks at that the model lacks
            if not (given.may_refuse and plan.stages):
                raise
            _refuse(given, job, error, inputs, bar)
        except Exception as error:  # whatever a third party's strategy raises costs its own trial, not the study
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            given.store.add({**head_of_record(setting, inputs), "error": reason})
            bar.say(f"failed: {name}: {reason}")
            bar.tally.failed += 1
        else:
            given.store.add(record, outcomes)
            bar.say(f"{name}: {headline(record)}")
            bar.tally.ran += 1
    bar.end(len(inputs))


def _refuse(given: Sweep, job: Job, error: HeadwiseError, inputs: Inputs, bar: Bar) -> None:
    """Put on record that a trial cannot be run, and why."""
    head = head_of_record(given.setting(job.recipe), inputs)
    told = {"budget": {"given": job.recipe.budget.text}, "refused": str(error)}
    before = given.store.records.get(head["id"])
    if before is None or before.get("refused") != told["refused"]:
        given.store.add({**head, **told})
    bar.say(f"not run: {job.label}: {error}")
    bar.tally.refused += 1


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("questions, left:"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
