"""Where each official benchmark is found on the hub, and what its rows have to hold.

The ids are those that lmms-eval evaluates on (its task files under lmms_eval/tasks; the same data were called
lmms-lab/NAME before). The column names stand in its task code and on the dataset cards. "whole": a limit does not save
reading rows, because MME's pairs and MMBench's passes lie anywhere in their splits.

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
from headwise_lab.benchmarks.hub.source import HubDataset

OWNER = "lmms-lab-encoder"


@attrs.frozen
class HubLayout:
    """A benchmark's usual dataset, and the function that writes its rows as official files.

    ``write(source, folder, limit)`` writes at least what the first ``limit`` questions need. ``kind`` names the folder;
    benchmarks of one kind share it. ``cut``: whether a limit saves reading rows. A benchmark from another package has
    its layout in its attribute ``hub``.
    """

    kind: str
    dataset: str
    splits: tuple[str, ...]
    write: Callable[[HubDataset, Path, int | None], None]
    config: str | None = None
    cut: bool = True


_TEXTVQA = HubLayout("textvqa", f"{OWNER}/textvqa", ("validation",), writers.textvqa)


def _mmbench(language: str, split: str) -> HubLayout:
    write = partial(writers.mmbench, name=f"MMBench_{split.upper()}_{language.upper()}.tsv")
    kind = f"mmbench-{language}-{split}"
    return HubLayout(kind, f"{OWNER}/MMBench", (split,), write, config=language, cut=False)


LAYOUTS = {
    "vqav2": HubLayout("vqav2", f"{OWNER}/VQAv2", ("validation",), writers.vqav2),
    "vqav2-test-dev": HubLayout("vqav2-test-dev", f"{OWNER}/VQAv2", ("testdev",), writers.vqav2_test_dev),
    "gqa": HubLayout("gqa", f"{OWNER}/GQA", ("testdev",), writers.gqa, config="testdev_balanced_instructions"),
    "vizwiz": HubLayout("vizwiz-val", f"{OWNER}/VizWiz-VQA", ("val",), partial(writers.vizwiz, split="val")),
    "vizwiz-test": HubLayout("vizwiz-test", f"{OWNER}/VizWiz-VQA", ("test",), partial(writers.vizwiz, split="test")),
    "scienceqa": HubLayout("scienceqa", f"{OWNER}/ScienceQA", ("test",), writers.scienceqa, config="ScienceQA-IMG"),
    "textvqa": _TEXTVQA,
    "textvqa-ocr": _TEXTVQA,
    "pope": HubLayout("pope", f"{OWNER}/POPE", ("random", "popular", "adversarial"), writers.pope, config="Full"),
    "mme": HubLayout("mme", f"{OWNER}/MME", ("test",), writers.mme, cut=False),
    "mmbench": _mmbench("en", "dev"),
    "mmbench-test": _mmbench("en", "test"),
    "mmbench-cn": _mmbench("cn", "dev"),
    "mmbench-cn-test": _mmbench("cn", "test"),
    "mm-vet": HubLayout("mm-vet", f"{OWNER}/MMVet", ("test",), writers.mmvet),
}


def layout_of(benchmark: Benchmark) -> HubLayout:
    """The layout of a benchmark on the hub; raises DataError where it is not known."""
    found = getattr(benchmark, "hub", None) or LAYOUTS.get(benchmark.name)
    if not isinstance(found, HubLayout):
        raise DataError(f"{benchmark.name} has no known layout on the hub; benchmarks with one: {', '.join(LAYOUTS)}")
    return found
