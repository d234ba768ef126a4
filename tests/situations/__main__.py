"""``python -m tests.situations COUNT SEED``: draws situations and lists what is wrong, each kind of fault once."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections import Counter, defaultdict

import attrs
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import UnsatisfiedAssumption
from tests.situations.situation import Situation, situations
from tests.situations.verdict import judge


def kind_of(error: BaseException) -> str:
    """An error without its numbers, and where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    told = re.sub(r"[0-9]+[0-9.]*", "#", (str(error).splitlines() or [""])[0])
    return f"{type(error).__name__}: {told[:230]} ({place.filename.rpartition('/')[2]}:{place.lineno})"


def main(count: int, number: int) -> None:
    """Draw ``count`` situations from seed ``number``."""
    verdicts: Counter[str] = Counter()
    faults: dict[str, list[Situation]] = defaultdict(list)

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(situations())
    def draw(situation: Situation) -> None:
        try:
            verdicts[judge(situation)] += 1
        except UnsatisfiedAssumption:
            verdicts["not for the stock model either"] += 1
            raise
        except Exception as error:
            verdicts["wrong"] += 1
            faults[kind_of(error)].append(situation)

    draw()
    print(f"{sum(verdicts.values())} situations from seed {number}: {dict(verdicts)}")
    usual = {field.name: field.default for field in attrs.fields(Situation)}
    for kind, found in sorted(faults.items(), key=lambda item: -len(item[1])):
        print(len(found), kind)
        for situation in sorted(found, key=lambda one: len(repr(one)))[:2]:
            told = attrs.asdict(situation, recurse=False)
            print("   ", {name: value for name, value in told.items() if value != usual[name]})


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), int(sys.argv[2]))
