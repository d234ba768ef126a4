"""Handing out trials: inputs are rarely built twice, no worker is idle while a trial waits, and none is lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.fake_sweep import trials

from headwise_lab.sweeps.executor import AttemptResult, Ended, Started
from headwise_lab.sweeps.scheduler import Scheduler, choose
from headwise_lab.sweeps.trials import Trial

GROUPS = [(model, benchmark, 0) for model in "ab" for benchmark in "xyz"]


def test_a_worker_stays_with_its_group_then_its_model_then_takes_what_nobody_has_then_helps():
    ax, ay, az, bx, by, _ = GROUPS
    assert choose(ax, {ay: 9, ax: 1}, [ax]) == ax
    assert choose(ax, {by: 9, ay: 1}, []) == ay
    assert choose(ax, {ay: 9, bx: 1}, [ay]) == bx
    assert choose(None, {ay: 9, az: 9, bx: 1}, [ax]) == bx  # a model that nobody has
    assert choose(None, {ay: 9, az: 9, bx: 1}, [ax, by]) == ay
    assert choose(None, {ax: 3, ay: 2}, [ax, ay]) == ax
    assert choose(bx, {ax: 3, ay: 3}, [ax, ax, ay]) == ay  # 3 for two workers, rather than 3 for three


@given(st.lists(st.sampled_from(GROUPS), min_size=1, max_size=40), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_every_trial_runs_once_more_for_every_wish_and_no_group_is_split_while_another_is_free(groups, count, draw):
    listed = [
        Trial(id=f"{number}", label="", model=model, benchmark=benchmark, seed=seed)
        for number, (model, benchmark, seed) in enumerate(groups)
    ]
    heard, wishes = [], Counter()

    def tell(event):
        heard.append((type(event), event.id))
        again = isinstance(event, Ended) and wishes[event.id] < 2 and draw.random() < 0.3
        wishes[event.id] += again
        return again

    scheduler = Scheduler(listed, tell)
    waiting = Counter(groups)
    has = {}  # worker -> its group; those that have none left are gone
    idle = dict.fromkeys(range(count))
    while idle or has:
        for worker, mine in list(idle.items()):
            del idle[worker]
            trial = scheduler.start(worker, mine)
            if trial is None:
                assert not +waiting  # nobody goes while a trial waits
                continue
            if trial.group != mine:
                assert not waiting[mine]
                free = set(+waiting) - set(has.values())
                assert trial.group in free or not free
            waiting[trial.group] -= 1
            has[worker] = trial.group
        if has:
            worker = draw.choice(sorted(has))
            before = wishes.total()
            idle[worker] = scheduler.end(worker, AttemptResult())
            assert idle[worker] == has.pop(worker)
            waiting[idle[worker]] += wishes.total() - before
    assert not scheduler.waiting
    assert not scheduler.running
    wanted = {trial.id: 1 + wishes[trial.id] for trial in listed}
    assert Counter(name for kind, name in heard if kind is Started) == wanted
    assert Counter(name for kind, name in heard if kind is Ended) == wanted


def test_one_worker_takes_groups_and_trials_in_the_order_they_were_given_in():
    listed, taken, mine = trials(8), [], None
    scheduler = Scheduler(listed, lambda _: False)
    while trial := scheduler.start("only", mine):
        taken.append(trial)
        mine = scheduler.end("only", AttemptResult())
    order = list(dict.fromkeys(trial.group for trial in listed))
    assert taken == sorted(listed, key=lambda trial: order.index(trial.group))
