"""Where each official benchmark is found on the hub, and what its rows have to hold.

The ids are those that lmms-eval evaluates on (its task files under lmms_eval/tasks; the same data were lmms-lab/NAME
before). Column names are those its task code reads, and those of the dataset cards. "whole" is what a limit cannot cut:
MME's pairs and MMBench's passes lie anywhere in their splits, so all rows are read whatever is asked.

=================  =============================  ==========================================  ======
benchmark          dataset                        config: split                               limit
=================  =============================  ==========================================  ======
vqav2              lmms-lab-encoder/VQAv2         (default): validation                       rows
vqav2-test-dev     lmms-lab-encoder/VQAv2         (default): testdev, and the ids of test     rows
gqa                lmms-lab-encoder/GQA           testdev_balanced_instructions: testdev,     rows
                                                  and the pictures of testdev_balanced_images
vizwiz             lmms-lab-encoder/VizWiz-VQA    (default): val                              rows
vizwiz-test        lmms-lab-encoder/VizWiz-VQA    (default): test                             rows
scienceqa          lmms-lab-encoder/ScienceQA     ScienceQA-IMG: test                         rows
textvqa, -ocr      lmms-lab-encoder/textvqa       (default): validation                       rows
pope               lmms-lab-encoder/POPE          Full: random, popular, adversarial          rows
mme                lmms-lab-encoder/MME           (default): test                             whole
mmbench            lmms-lab-encoder/MMBench       en: dev                                     whole
mmbench-test       lmms-lab-encoder/MMBench       en: test                                    whole
mmbench-cn         lmms-lab-encoder/MMBench       cn: dev                                     whole
mmbench-cn-test    lmms-lab-encoder/MMBench       cn: test                                    whole
mm-vet             lmms-lab-encoder/MMVet         (default): test                             rows
=================  =============================  ==========================================  ======
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks import Benchmark
from headwise_lab.benchmarks.hub import writers
from headwise_lab.benchmarks.hub.source import Source

OWNER = "lmms-lab-encoder"


@attrs.frozen
class Layout:
    """A benchmark's usual dataset, and ``write``, which puts rows into a folder in the official layout.

    ``write(source, folder, limit)`` writes at least what the first ``limit`` questions need. ``kind`` names the folder:
    benchmarks with one kind share it. ``cut``: whether a limit saves reading rows. A benchmark from another package
    offers its own as its attribute ``hub``.
    """

    kind: str
    dataset: str
    splits: tuple[str, ...]
    write: Callable[[Source, Path, int | None], None]
    config: str | None = None
    cut: bool = True


_TEXTVQA = Layout("textvqa", f"{OWNER}/textvqa", ("validation",), writers.textvqa)


def _mmbench(language: str, split: str) -> Layout:
    write = partial(writers.mmbench, name=f"MMBench_{split.upper()}_{language.upper()}.tsv")
    kind = f"mmbench-{language}-{split}"
    return Layout(kind, f"{OWNER}/MMBench", (split,), write, config=language, cut=False)


LAYOUTS = {
    "vqav2": Layout("vqav2", f"{OWNER}/VQAv2", ("validation",), writers.vqav2),
    "vqav2-test-dev": Layout("vqav2-test-dev", f"{OWNER}/VQAv2", ("testdev",), writers.vqav2_test_dev),
    "gqa": Layout("gqa", f"{OWNER}/GQA", ("testdev",), writers.gqa, config="testdev_balanced_instructions"),
    "vizwiz": Layout("vizwiz-val", f"{OWNER}/VizWiz-VQA", ("val",), partial(writers.vizwiz, split="val")),
    "vizwiz-test": Layout("vizwiz-test", f"{OWNER}/VizWiz-VQA", ("test",), partial(writers.vizwiz, split="test")),
    "scienceqa": Layout("scienceqa", f"{OWNER}/ScienceQA", ("test",), writers.scienceqa, config="ScienceQA-IMG"),
    "textvqa": _TEXTVQA,
    "textvqa-ocr": _TEXTVQA,
    "pope": Layout("pope", f"{OWNER}/POPE", ("random", "popular", "adversarial"), writers.pope, config="Full"),
    "mme": Layout("mme", f"{OWNER}/MME", ("test",), writers.mme, cut=False),
    "mmbench": _mmbench("en", "dev"),
    "mmbench-test": _mmbench("en", "test"),
    "mmbench-cn": _mmbench("cn", "dev"),
    "mmbench-cn-test": _mmbench("cn", "test"),
    "mm-vet": Layout("mm-vet", f"{OWNER}/MMVet", ("test",), writers.mmvet),
}


def layout_of(benchmark: Benchmark) -> Layout:
    """Where a benchmark's rows are found; raises DataError for one whose layout on the hub is not known."""
    found = getattr(benchmark, "hub", None) or LAYOUTS.get(benchmark.name)
    if not isinstance(found, Layout):
        raise DataError(f"{benchmark.name} is in no known layout on the hub; those that are: {', '.join(LAYOUTS)}")
    return found
