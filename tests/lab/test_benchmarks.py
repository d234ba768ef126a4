"""The four synthetic benchmarks: official layouts, official figures, balance and truth."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
from PIL import Image

from headwise.errors import DataError, StrategyError
from headwise_lab.benchmarks import (
    SUFFIX,
    Benchmark,
    Question,
    benchmark,
    names,
    shapes_gqa,
    shapes_mme,
    shapes_pope,
    shapes_textvqa,
)
from headwise_lab.benchmarks.questions import questions_of
from headwise_lab.demo.llava.tokenizer import question_ids
from headwise_lab.scenes import COLORS, SHAPES, Example, Scene, ask, draw, sample_scene

NAMES = ("shapes-gqa", "shapes-mme", "shapes-pope", "shapes-textvqa")
COUNT = 60


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("benchmarks")
    for name in NAMES:
        benchmark(name).prepare(root / name, COUNT, seed=3)
    return {name: root / name for name in NAMES}


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def question(number: int, kind: str, *answers: str, unit: str = "") -> Question:
    return Question(str(number), unit or str(number), Path("none.png"), "?", answers, kind)


def test_the_four_are_installed_and_keep_the_contract() -> None:
    assert set(NAMES) <= set(names())
    for name in NAMES:
        found = benchmark(name)
        assert isinstance(found, Benchmark)
        assert name == found.name
        assert found.scale == 100.0


def test_an_unknown_name_is_answered_with_what_was_meant() -> None:
    with pytest.raises(StrategyError, match=r"^unknown benchmark 'shapes-popo'; did you mean shapes-pope"):
        benchmark("shapes-popo")


def install(folder: Path, **entries: str) -> None:
    """A made-up distribution with benchmarks that are not right."""
    info = folder / "other_bench-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-bench\nVersion: 2.0\n")
    lines = "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[headwise.benchmark]\n{lines}")


def test_broken_benchmarks_are_reported_with_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, gone="no_such_module:X", needy="types:MethodType", dull="fractions:Fraction")
    monkeypatch.syspath_prepend(tmp_path)
    faults = {"gone": "does not import", "needy": "failed: TypeError", "dull": "lacks part of the benchmark"}
    for name, part in faults.items():
        with pytest.raises(StrategyError, match=rf"(?s)'{name}'.*other-bench 2\.0.*{part}"):
            benchmark(name)


def test_a_clash_is_settled_by_naming_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, shapes_gqa="fractions:Fraction")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StrategyError, match=r"other-bench 2\.0; write OWNER/shapes-gqa"):
        benchmark("shapes-gqa")
    assert benchmark("headwise/shapes-gqa").name == "shapes-gqa"


def test_pope_is_written_in_the_official_layout(folders: dict[str, Path]) -> None:
    folder = folders["shapes-pope"]
    for subset in ("random", "popular", "adversarial"):
        rows = [json.loads(line) for line in (folder / f"coco_pope_{subset}.json").read_text().splitlines()]
        assert list(range(1, 21)) == [row["question_id"] for row in rows]
        assert {"question_id", "image", "text", "label"} == set().union(*rows)
        assert Counter(row["label"] for row in rows) == {"yes": 10, "no": 10}
        assert all((folder / "images" / row["image"]).is_file() for row in rows)


def test_gqa_is_written_in_the_official_layout(folders: dict[str, Path]) -> None:
    rows = json.loads((folders["shapes-gqa"] / "testdev_balanced_questions.json").read_text())
    assert len(rows) == COUNT
    for row in rows.values():
        assert {"imageId", "question", "answer", "types"} <= set(row)
        assert (folders["shapes-gqa"] / "images" / f"{row['imageId']}.png").is_file()
    assert dict.fromkeys(("color", "shape", "count", "where", "relation"), 12) == Counter(
        row["types"]["detailed"] for row in rows.values()
    )


def test_textvqa_is_written_in_the_official_layout(folders: dict[str, Path]) -> None:
    document = json.loads((folders["shapes-textvqa"] / "TextVQA_0.5.1_val.json").read_text())
    assert document["dataset_version"] == "0.5.1"
    assert len(document["data"]) == COUNT
    for row in document["data"]:
        assert len(row["answers"]) == 10
        assert (folders["shapes-textvqa"] / "train_images" / f"{row['image_id']}.png").is_file()


def test_mme_is_written_in_the_official_layout(folders: dict[str, Path]) -> None:
    for category in ("existence", "position"):
        files = sorted((folders["shapes-mme"] / category).glob("*.txt"))
        assert len(files) == 15
        for path in files:
            assert path.with_suffix(".png").is_file()
            lines = [line.split("\t") for line in path.read_text().splitlines()]
            assert [answer for _, answer in lines] == ["Yes", "No"]
            assert all(text.endswith("? Please answer yes or no.") for text, _ in lines)


def test_mme_is_read_in_its_other_official_layout(folders: dict[str, Path], tmp_path: Path) -> None:
    plain = benchmark("shapes-mme").load(folders["shapes-mme"], None)
    for path in folders["shapes-mme"].glob("*/*.*"):
        inner = "images" if path.suffix == ".png" else "questions_answers_YN"
        (tmp_path / path.parent.name / inner).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.parent.name / inner)
    found = benchmark("shapes-mme").load(tmp_path, None)
    assert [(q.id, q.text, q.answers) for q in plain] == [(q.id, q.text, q.answers) for q in found]
    assert {"images"} == {q.image.parent.name for q in found}
    assert {()} == {q.boxes for q in found}  # official data have no boxes


def test_jpg_pictures_of_official_data_are_found(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("shapes-gqa", "shapes-textvqa"):
        folder = shutil.copytree(folders[name], tmp_path / name)
        for path in folder.rglob("*.png"):
            path.rename(path.with_suffix(".jpg"))
        assert {".jpg"} == {q.image.suffix for q in benchmark(name).load(folder, None)}


def written(name: str) -> list[tuple[str, Example]]:
    """(answer in the files, case) of every question."""
    match name:
        case "shapes-pope":
            return [(case.question.answer, case) for _, case in shapes_pope.examples(COUNT, 3)]
        case "shapes-gqa":
            return [(case.question.answer, case) for case in shapes_gqa.examples(COUNT, 3)]
        case "shapes-textvqa":
            return [(case.question.answer, case) for case, _ in shapes_textvqa.examples(COUNT, 3)]
        case _:
            pairs = [(("Yes", yes), ("No", no)) for _, yes, no in shapes_mme.examples(COUNT, 3)]
            return [one for pair in pairs for one in pair]


@pytest.mark.parametrize("name", NAMES)
def test_questions_survive_the_round_trip(name: str, folders: dict[str, Path]) -> None:
    found = benchmark(name).load(folders[name], None)
    assert COUNT == len(found) == len({q.id for q in found})
    expected = Counter((case.question.text + SUFFIX, answer, case.question.boxes) for answer, case in written(name))
    assert expected == Counter((q.text, Counter(q.answers).most_common(1)[0][0], q.boxes) for q in found)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_show_the_scenes_that_were_asked_about(name: str, folders: dict[str, Path]) -> None:
    asked = benchmark(name).load(folders[name], None)
    for _, case in written(name)[:4]:
        key = (case.question.text + SUFFIX, case.question.boxes)  # now and then two questions share it
        shown = [np.asarray(Image.open(q.image)) for q in asked if (q.text, q.boxes) == key]
        assert any(np.array_equal(draw(case.scene, case.seed), picture) for picture in shown)


@pytest.mark.parametrize("name", NAMES)
def test_scenes_hold_4_to_12_things(name: str) -> None:
    assert {True} == {4 <= len(case.scene.things) <= 12 for _, case in written(name)}


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_models_tokenizer_knows_every_question(name: str, folders: dict[str, Path]) -> None:
    for q in benchmark(name).load(folders[name], None):
        assert q.text.endswith(SUFFIX)
        assert len(question_ids(q.text.removesuffix(SUFFIX))) == 7


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_files_and_others_do_not(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    benchmark(name).prepare(tmp_path / "again", COUNT, seed=3)
    assert contents(folders[name]) == contents(tmp_path / "again")
    benchmark(name).prepare(tmp_path / "other", 6, seed=4)
    benchmark(name).prepare(tmp_path / "small", 6, seed=3)
    assert not set(contents(tmp_path / "other").values()) & set(contents(tmp_path / "small").values())


@pytest.mark.parametrize("name", NAMES)
def test_any_limit_takes_a_balanced_beginning(name: str, folders: dict[str, Path]) -> None:
    whole = benchmark(name).load(folders[name], None)
    group = 2 if name == "shapes-mme" else 1
    kinds = {q.kind for q in whole}
    for limit in (2, 7, 31, COUNT, 10 * COUNT):
        taken = benchmark(name).load(folders[name], limit)
        assert whole[: limit - limit % group] == taken
        counts = Counter(q.kind for q in taken)
        assert group >= max(counts.values()) - min(counts[kind] for kind in kinds)


def test_pope_says_yes_and_no_equally_often_under_any_limit(folders: dict[str, Path]) -> None:
    for limit in (6, 18, 31):
        taken = benchmark("shapes-pope").load(folders["shapes-pope"], limit)
        for subset in ("random", "popular", "adversarial"):
            labels = Counter(q.answers[0] for q in taken if q.kind == subset)
            assert abs(labels["yes"] - labels["no"]) <= 1


def test_mme_pairs_stay_whole(folders: dict[str, Path]) -> None:
    taken = benchmark("shapes-mme").load(folders["shapes-mme"], 31)
    assert len(taken) == 30
    assert {2} == set(Counter(q.unit for q in taken).values())
    assert Counter(q.answers[0] for q in taken) == {"Yes": 15, "No": 15}


@pytest.mark.parametrize(("name", "limit"), [("shapes-gqa", 0), ("shapes-gqa", -1), ("shapes-mme", 1)])
def test_a_limit_that_leaves_nothing_is_refused(name: str, limit: int, folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=f"^a limit of {limit} leaves no question; the smallest limit is "):
        benchmark(name).load(folders[name], limit)


def pairs_of(scene: Scene) -> set[tuple[str, str]]:
    return {(thing.color, thing.shape) for thing in scene.things}


def asked_pair(case: Example) -> tuple[str, str]:
    color, shape = case.question.text.removeprefix("Is there a ").removesuffix(" in the image?").split(" ")
    return color, shape


def test_pope_labels_and_boxes_are_true() -> None:
    for _, case in shapes_pope.examples(240, 0):
        there = [thing for thing in case.scene.things if (thing.color, thing.shape) == asked_pair(case)]
        assert ("yes" if there else "no") == case.question.answer
        assert sorted(thing.cell for thing in there) == sorted(case.question.cells)


def test_adversarial_absences_have_both_parts_in_the_scene_but_not_together() -> None:
    absent = [c for subset, c in shapes_pope.examples(240, 0) if subset == "adversarial" and c.question.answer == "no"]
    assert len(absent) == 40
    for case in absent:
        color, shape = asked_pair(case)
        assert color in {thing.color for thing in case.scene.things}
        assert shape in {thing.shape for thing in case.scene.things}
        assert (color, shape) not in pairs_of(case.scene)


def test_popular_absences_are_among_the_most_frequent_pairs_of_the_benchmark() -> None:
    asked = shapes_pope.examples(240, 0)
    have = Counter(pair for _, case in asked for pair in pairs_of(case.scene))
    sixteenth = sorted((have[color, shape] for color in COLORS for shape in SHAPES), reverse=True)[15]
    absent = [asked_pair(case) for subset, case in asked if subset == "popular" and case.question.answer == "no"]
    assert len(absent) == 40
    assert all(have[pair] >= sixteenth for pair in absent)
    assert len(set(absent)) > 8  # spread over them


def test_random_absences_are_not_all_mixtures() -> None:
    absent = [c for subset, c in shapes_pope.examples(240, 0) if subset == "random" and c.question.answer == "no"]
    parts = [{thing.color for thing in c.scene.things} | {thing.shape for thing in c.scene.things} for c in absent]
    assert any(not set(asked_pair(case)) <= have for case, have in zip(absent, parts, strict=True))


def test_pope_phrases_its_question_as_the_world_does() -> None:
    rng = Random(0)
    world = set()
    while len(world) < 64:
        found = ask("exist", sample_scene(rng), rng)
        world.add(found.text if found else "")
    assert world >= {case.question.text for _, case in shapes_pope.examples(60, 1)}


def test_mme_asks_both_questions_of_one_picture_with_one_yes_and_one_no() -> None:
    for _, yes, no in shapes_mme.examples(40, 0):
        assert (yes.question.answer, no.question.answer) == ("yes", "no")
        assert (yes.scene, yes.seed) == (no.scene, no.seed)


def test_textvqa_people_err_at_most_twice_and_the_truth_scores_full() -> None:
    asked = shapes_textvqa.examples(90, 0)
    astray = Counter(10 - answers.count(case.question.answer) for case, answers in asked)
    assert {0, 1, 2} == set(astray)
    assert {True, False} == {answers[0] == case.question.answer for case, answers in asked}  # in no fixed place
    assert {True, False} == {answers[-1] == case.question.answer for case, answers in asked}
    found = benchmark("shapes-textvqa")
    scores = {found.score(question(0, "text", *answers), case.question.answer) for case, answers in asked}
    assert {1.0} == scores


def test_a_person_astray_earns_three_tenths() -> None:
    found = benchmark("shapes-textvqa").score(question(0, "text", *["stop"] * 9, "exit"), "Exit")
    assert pytest.approx(found) == 0.3


def test_pope_figures_by_hand() -> None:
    kinds = ["random"] * 4 + ["adversarial"] * 4
    labels = ["yes", "yes", "no", "no"] * 2
    said = ["Yes", "No", "No", "No", "Yes", "Yes", "Yes, two", "No."]
    asked = [question(i, kind, label) for i, (kind, label) in enumerate(zip(kinds, labels, strict=True))]
    found = benchmark("shapes-pope").metrics(asked, said)
    expected = {
        **{"accuracy/random": 75, "precision/random": 100, "recall/random": 50, "f1/random": 200 / 3},
        **{"accuracy/adversarial": 75, "precision/adversarial": 200 / 3, "recall/adversarial": 100},
        **{"f1/adversarial": 80, "yes_ratio/random": 25, "yes_ratio/adversarial": 75},
        **{"accuracy": 75, "precision": 250 / 3, "recall": 75, "f1": 220 / 3, "yes_ratio": 50},
    }
    assert expected == pytest.approx(found)


def test_gqa_figures_by_hand() -> None:
    asked = [question(0, "color", "red"), question(1, "color", "blue"), question(2, "where", "top-left")]
    expected = {"accuracy": 200 / 3, "accuracy/color": 50, "accuracy/where": 100}
    assert expected == pytest.approx(benchmark("shapes-gqa").metrics(asked, ["Red.", "light blue", "Top-left"]))


def test_mme_figures_by_hand() -> None:
    mme = benchmark("shapes-mme")
    units = ["existence/1"] * 2 + ["existence/2"] * 2 + ["position/1"] * 2
    asked = [question(i, u.split("/")[0], ["Yes", "No"][i % 2], unit=u) for i, u in enumerate(units)]
    said = ["yes", "No.", "Yes", "Yes", "no", "maybe"]
    scores = [mme.score(q, p) for q, p in zip(asked, said, strict=True)]
    assert mme.units(asked, scores) == {"existence/1": 2.0, "existence/2": 0.5, "position/1": 0.0}
    existence = {"acc/existence": 75, "acc_plus/existence": 50, "score/existence": 125}
    position = {"acc/position": 0, "acc_plus/position": 0, "score/position": 0}
    assert {"score": 250 / 3, "total": 125, **existence, **position} == pytest.approx(mme.metrics(asked, said))


@pytest.mark.parametrize("name", NAMES)
def test_the_headline_is_scale_times_the_mean_unit_and_among_the_figures(name: str, folders: dict[str, Path]) -> None:
    found = benchmark(name)
    asked = found.load(folders[name], None)
    said = [q.answers[0] if i % 3 else "yes" for i, q in enumerate(asked)]
    units = found.units(asked, [found.score(q, p) for q, p in zip(asked, said, strict=True)])
    assert {q.unit for q in asked} == set(units)
    headline = found.scale * sum(units.values()) / len(units)
    assert headline == pytest.approx(found.metrics(asked, said)[found.metric])
    assert 0 < headline < (200 if name == "shapes-mme" else 100)


def test_a_benchmark_whose_questions_share_an_id_is_refused_by_name(tmp_path: Path) -> None:
    class Twins(SimpleNamespace):
        name = "twins"

        def load(self, folder: Path, limit: int | None) -> list[Question]:
            one, other = benchmark("shapes-gqa").load(gqa, None)[:2]
            return [one, attrs.evolve(other, id=one.id)]

    gqa = tmp_path / "gqa"
    benchmark("shapes-gqa").prepare(gqa, 40, 0)
    with pytest.raises(DataError, match=r"benchmark 'twins' gave several questions the id '.+'; answers are paired by"):
        questions_of(Twins(), data=gqa)
