"""Datasets of the hub give the same questions, pictures and scores as the official files they were made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("datasets", reason="needs the package datasets: pip install 'headwise[hub]'")

from tests.lab import hub_datasets as hub
from tests.lab import official_files as files

from headwise.cli import main
from headwise.errors import DataError
from headwise_lab.benchmarks import Question, benchmark
from headwise_lab.benchmarks.hub import DatasetReference, is_reference, source, writers
from headwise_lab.benchmarks.hub.layouts import LAYOUTS, HubLayout, layout_of
from headwise_lab.benchmarks.questions import beside, pinned, questions_of
from headwise_lab.sweeps.planning import planned
from headwise_lab.sweeps.reading import read

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NUMBERED = {"11": "0", "4": "1"}  # ScienceQA's ids, and the rows that their dataset has them in
NAMES = tuple(files.WRITERS)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Official files and the dataset of a benchmark, each made once."""
    there: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in there:
            folder = tmp_path_factory.mktemp(name)
            official = files.WRITERS[name](folder / "official")
            there[name] = official, hub.dataset(name, official, folder / "dataset")
        return there[name]

    return make


def shown(question: Question) -> tuple[dict[str, Any], bytes]:
    """What is asked, the name of the picture, and its bytes."""
    return attrs.asdict(question) | {"image": question.image.name}, question.image.read_bytes()


def numbered(question: Question) -> Question:
    number = NUMBERED[question.id]
    return attrs.evolve(question, id=number, unit=number)


def kept(cache: Path) -> list[Path]:
    """All folders that hold a dataset, whole or half."""
    return [path for path in (cache / "hub").glob("*/*") if path.is_dir()]


def refused(name: str, data: str | Path, limit: int | None = None) -> str:
    with pytest.raises(DataError) as caught:
        questions_of(benchmark(name), data=data, limit=limit)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_questions_pictures_and_figures_are_those_of_the_official_files(name: str, made: Any) -> None:
    found = benchmark(name)
    official, dataset = made(name)
    expected = questions_of(found, data=official)
    if name == "scienceqa":
        expected = [numbered(question) for question in expected]
    questions = questions_of(found, data=f"hub:{dataset}")
    assert list(map(shown, expected)) == list(map(shown, questions))
    if questions[0].answers:
        said = [question.answers[0] if i % 3 else "B" for i, question in enumerate(questions)]
        assert found.metrics(expected, said) == found.metrics(questions, said)
        assert found.metrics(questions, said)[found.metric] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 4, 5])
def test_a_limit_asks_what_the_loader_would_take_of_all_rows(name: str, limit: int, made: Any, cache: Path) -> None:
    limit = max(limit, 4) if name.startswith(("mmbench", "mme")) else limit  # no unit of theirs is smaller
    found, data = benchmark(name), f"hub:{made(name)[1]}"
    part = list(map(shown, questions_of(found, data=data, limit=limit)))
    whole = questions_of(found, data=data)
    assert part == list(map(shown, questions_of(found, data=data, limit=limit)))
    assert len(part) <= len(whole)
    assert part == list(map(shown, found.load(_root(cache), limit)))


def _root(cache: Path) -> Path:
    """The folder with all rows, which is the one whose stamp names no limit."""
    (root,) = [path for path in kept(cache) if '"first": null' in (path / "prepared.json").read_text()]
    return root


@pytest.mark.parametrize(("name", "limit", "rows"), [("vqav2", 1, 1), ("pope", 4, 6), ("gqa", 1, 3), ("mm-vet", 1, 1)])
def test_a_limit_reads_no_more_rows_than_it_needs(
    name: str, limit: int, rows: int, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POPE's subsets take turns, so 4 questions need 2 of each; GQA's picture is the second of its config."""
    read = []
    original = source.HubDataset.rows

    def counting(self: Any, *given: Any, **options: Any) -> Iterator[Any]:
        for row in original(self, *given, **options):
            read.append(row)
            yield row

    monkeypatch.setattr(source.HubDataset, "rows", counting)
    assert limit == len(questions_of(benchmark(name), data=f"hub:{made(name)[1]}", limit=limit))
    assert rows == len(read)


def test_the_second_use_reads_no_dataset(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = made("pope")[1]
    first = questions_of(benchmark("pope"), data=f"hub:{dataset}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert first == questions_of(benchmark("pope"), data=f"hub:{dataset}")
    assert len(first) > len(questions_of(benchmark("pope"), data=f"hub:{dataset}", limit=4)) == 4
    assert "pip install 'headwise[hub]'" in refused("pope", f"hub:{dataset}:default:test")


def test_benchmarks_that_read_the_same_files_share_them(made: Any, cache: Path) -> None:
    data = f"hub:{made('textvqa')[1]}"
    questions_of(benchmark("textvqa"), data=data)
    questions_of(benchmark("textvqa-ocr"), data=data)
    assert len(kept(cache)) == 1


def test_a_changed_copy_is_read_anew(made: Any, tmp_path: Path) -> None:
    official, _ = made("mm-vet")
    folder = hub.publish(tmp_path / "copy", hub.mmvet(official))
    assert questions_of(benchmark("mm-vet"), data=f"hub:{folder}")[1].answers[0] == "christmas<OR>x-mas"
    hub.publish(folder, hub.changed(hub.mmvet(official), answer="another one"))
    assert questions_of(benchmark("mm-vet"), data=f"hub:{folder}")[1].answers[0] == "another one"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full"), DataError("torn")])
def test_an_interruption_leaves_nothing_that_could_be_taken_for_whole(
    error: Any, made: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, original, saved = f"hub:{made('pope')[1]}", writers.save_picture, []

    def failing(path: Path, cell: Any) -> None:
        saved.append(path)
        if len(saved) == 5:
            raise error
        original(path, cell)

    monkeypatch.setattr(writers, "save_picture", failing)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else DataError):
        questions_of(benchmark("pope"), data=data)
    assert saved
    assert kept(cache) == []
    monkeypatch.undo()
    monkeypatch.setenv("HEADWISE_CACHE", str(cache))
    assert len(questions_of(benchmark("pope"), data=data)) == 12


def test_config_and_split_can_be_named(made: Any) -> None:
    pope, science = f"hub:{made('pope')[1]}", f"hub:{made('scienceqa')[1]}"
    every = list(map(shown, questions_of(benchmark("pope"), data=pope)))
    assert every == list(map(shown, questions_of(benchmark("pope"), data=f"{pope}:default:test")))
    assert every[:5] == list(map(shown, questions_of(benchmark("pope"), data=f"{pope}:default:test", limit=5)))
    full = questions_of(benchmark("scienceqa"), data=f"{science}:ScienceQA-FULL")
    assert [question.id for question in full] == ["0", "2"]
    assert [q.id for q in questions_of(benchmark("scienceqa"), data=f"{science}:ScienceQA-FULL", limit=1)] == ["0"]


def test_the_submission_to_vqav2_covers_the_whole_test_split(made: Any) -> None:
    found = benchmark("vqav2-test-dev")
    questions = questions_of(found, data=f"hub:{made('vqav2-test-dev')[1]}")
    assert tuple(question.id for question in questions) == ("71", "72")
    assert tuple(found.others) == ("70", "71", "72")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, made: Any) -> SimpleNamespace:
    """A hub that has one dataset, POPE's, under any id."""
    import datasets
    import huggingface_hub

    asked: list[tuple[Any, ...]] = []
    real = datasets.load_dataset_builder

    def info(_: Any, name: str, *, revision: str | None = None, timeout: float | None = None) -> SimpleNamespace:
        asked.append(("info", name, revision))
        return SimpleNamespace(sha=COMMIT)

    def builder(name: str, config: str | None, *, revision: str | None, **options: Any) -> Any:
        asked.append(("files", name, config, revision))
        return real(str(made("pope")[1]), config, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    return SimpleNamespace(asked=asked)


def test_the_usual_dataset_is_read_at_the_commit_that_is_then_written_down(online: SimpleNamespace) -> None:
    pope, usual = benchmark("pope"), "lmms-lab-encoder/POPE"
    assert len(questions_of(pope, data="hub")) == 12
    assert [("info", usual, None), ("files", usual, "Full", COMMIT)] == online.asked
    assert f"hub:{usual}@{COMMIT}" == pinned("hub", pope)
    online.asked.clear()
    assert len(questions_of(pope, data=pinned("hub", pope))) == 12
    assert online.asked == []


def test_another_dataset_keeps_its_parts_when_its_commit_is_written_down(online: SimpleNamespace) -> None:
    pope = benchmark("pope")
    assert len(questions_of(pope, data="hub:someone/Pope@v1:default:test")) == 12
    assert online.asked == [("info", "someone/Pope", "v1"), ("files", "someone/Pope", "default", COMMIT)]
    assert f"hub:someone/Pope@{COMMIT}:default:test" == pinned("hub:someone/Pope@v1:default:test", pope)
    assert pinned("hub:someone/Other", pope) == "hub:someone/Other"


def test_what_was_read_once_serves_without_a_connection(
    online: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    questions = questions_of(benchmark("pope"), data="hub")
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", _raising(ConnectionError("no route")))
    assert questions == questions_of(benchmark("pope"), data="hub")
    assert "someone/Else is not in the cache, and the hub cannot be reached (no route)" in refused(
        "pope", "hub:someone/Else"
    )


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_offline_mode_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    said = refused("textvqa", "hub")
    assert said.startswith("the dataset lmms-lab-encoder/textvqa is not in the cache, and the hub cannot be reached")
    assert "offline mode is enabled" in said
    assert "give --data a folder with the official files or hub:FOLDER" in said
    assert kept(cache) == []
    huggingface_hub.close_session()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("RepositoryNotFoundError", "there is no dataset someone/Pope on the Hugging Face hub, or it is private"),
        ("RevisionNotFoundError", "the dataset someone/Pope has no revision 'v1'"),
    ],
)
def test_unknown_datasets_and_revisions_are_told_apart(kind: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    error = getattr(huggingface_hub.errors, kind)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", _raising(error.__new__(error)))
    assert refused("pope", "hub:someone/Pope@v1").startswith(said)


def test_a_gated_dataset_says_so(online: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    gated = datasets.exceptions.DatasetNotFoundError("Dataset 'someone/Pope' is a gated dataset on the Hub.")
    monkeypatch.setattr(datasets, "load_dataset_builder", _raising(gated))
    said = refused("pope", "hub:someone/Pope")
    assert "the dataset someone/Pope cannot be opened in config 'Full': Dataset 'someone/Pope' is a gated" in said


def test_wrong_layouts_are_refused_in_a_sentence_and_not_kept(made: Any, tmp_path: Path, cache: Path) -> None:
    official = made("pope")[0]
    there = f"hub:{made('pope')[1]}"
    assert "cannot be opened in config 'Empty': BuilderConfig 'Empty' not found" in refused("pope", f"{there}:Empty")
    assert "has no split 'x' in config 'Full'; it has adversarial, popular, random" in refused("pope", f"{there}::x")

    def altered(number: int, **columns: Any) -> str:
        return f"hub:{hub.publish(tmp_path / str(number), hub.changed(hub.pope(official), **columns))}"

    said = refused("pope", altered(0, image_source=None, answer=None))
    assert "lacks the columns image_source, answer in config 'Full' (random); it has id, question_id, question" in said
    assert f"the dataset {tmp_path / '0'} lacks" in said
    wanted = "is not in the layout of lmms-lab-encoder/POPE, which pope is read from: "
    said = refused("pope", altered(1, answer="maybe"))
    assert (
        f"{wanted}coco_pope_random.json, line 1: 'label' should be yes or no, found 'maybe'; give another one" in said
    )
    assert f"{wanted}'category' should be one of random" in refused("pope", altered(2, category="odd"))
    assert f"{wanted}a picture should have a plain name" in refused("pope", altered(3, image_source="../../x"))
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "test.csv").write_text("a,b\n1,2\n")
    assert "is not made of parquet files" in refused("mme", f"hub:{tmp_path / '4'}")
    assert "there is no folder" in refused("mme", f"hub:{tmp_path / '5'}")
    broken = hub.publish(tmp_path / "6", hub.pope(official))
    (broken / "Full" / "random-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read in config 'Full' (random): " in refused("pope", f"hub:{broken}")
    assert kept(cache) == []
    assert not (tmp_path / "x.jpg").exists()


def test_a_benchmark_without_a_dataset_says_which_have_one() -> None:
    assert "shapes-gqa has no known layout on the hub; benchmarks with one: vqav2, " in refused("shapes-gqa", "hub")
    assert set(LAYOUTS) == set(NAMES)


def test_a_benchmark_of_another_package_brings_its_own_layout() -> None:
    own = HubLayout("own", "someone/Own", ("test",), writers.pope)

    class Own(type(benchmark("pope"))):  # type: ignore[misc]
        hub = own

    assert own is layout_of(Own())


@pytest.mark.parametrize("text", ["hub:pope", "hub:a/b/c", "hub:a/b@", "hub:a/b:c:d:e", "hub:a b/c", "hub:../x:a:b:c"])
def test_references_of_another_form_are_refused(text: str) -> None:
    assert f"{text} names no dataset; wanted: hub, hub:OWNER/NAME" in refused("pope", text)


WORD = st.text("abcXYZ019_", min_size=1, max_size=5)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.none() | WORD, st.none() | WORD, st.none() | WORD, st.sampled_from([None, "own/Name", "/a/b", "./a", "."]))
def test_a_reference_is_what_its_text_says(
    revision: str | None, config: str | None, split: str | None, dataset: str | None
) -> None:
    named = dataset == "own/Name"
    reference = DatasetReference(dataset, revision if named else None, config, split)
    assert is_reference(reference.text)
    assert reference == DatasetReference.of(reference.text)
    assert reference == DatasetReference.of(Path(reference.text)) or dataset == "./a"


def test_what_a_file_says_about_its_data_is_meant_from_there() -> None:
    folder = Path("/sweeps")
    assert beside(folder, "files") == "/sweeps/files"
    assert beside(folder, "/files") == "/files"
    assert beside(folder, "hub:./copy:en:dev") == "hub:/sweeps/copy:en:dev"
    for same in ("hub", "hub:a/b@v1:en", "s3://bucket/files"):
        assert same == beside(folder, same)


def test_a_trial_on_a_dataset_is_the_trial_on_its_official_files_and_its_command_names_the_commit(
    online: SimpleNamespace,
    made: Any,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headwise_lab.trial.record.new_tokens", lambda _: 2)
    words = ["run", "--model", str(tiny_folder), "--benchmark", "pope", "--limit", "3", "--batch", "3", "--json"]
    records = []
    for data in (str(made("pope")[0]), "hub"):
        assert main([*words, "--data", data]) == 0
        records.append(json.loads(capsys.readouterr().out))
    assert records[0]["id"] == records[1]["id"]
    assert f"--data hub:lmms-lab-encoder/POPE@{COMMIT}" in records[1]["command"]


def test_a_sweep_file_may_say_hub(online: SimpleNamespace, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        f'models = ["{tiny_folder}"]\nbenchmarks = ["pope"]\ndata = "hub"\nlimit = 3\nrecipes = ["fastv"]\n'
    )
    plan = planned(read(str(file)))
    assert {trial.questions for trial in plan.trials} == {3}
    assert f"--data hub:lmms-lab-encoder/POPE@{COMMIT}" in plan.head(plan.trials[0]).command
