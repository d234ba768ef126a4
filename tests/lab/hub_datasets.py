"""Small datasets in the column layouts of the hub, with the content of the folders that official_files makes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import official_files as files

Rows = list[dict[str, Any]]
Parts = Mapping[str, Mapping[str, Rows]]  # config -> split -> rows


def publish(folder: Path, parts: Parts) -> Path:
    """Write parquet files, and a card that tells configs and splits as the hub's cards do."""
    card = ["---", "configs:"]
    for config, splits in parts.items():
        inside = "data" if config == "default" else config
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            card += [f"  - split: {split}", f"    path: {inside}/{split}-*"]
            (folder / inside).mkdir(parents=True, exist_ok=True)
            _parquet(rows, folder / inside / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


def _parquet(rows: Rows, path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    made = datasets.Dataset.from_list(rows)
    if rows and "image" in rows[0]:
        made = made.cast_column("image", datasets.Image())
    made.to_parquet(path)


def image(path: Path) -> dict[str, Any]:
    """A picture as the column type Image stores it."""
    return {"bytes": path.read_bytes(), "path": path.name}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def vqav2(folder: Path) -> Parts:
    asked = read(folder / "v2_OpenEnded_mscoco_val2014_questions.json")["questions"]
    told = read(folder / "v2_mscoco_val2014_annotations.json")["annotations"]
    by_id = {row["question_id"]: row for row in told}
    pictures = folder / "val2014"
    rows = [
        row
        | by_id[row["question_id"]]
        | {"multiple_choice_answer": "net", "image": image(pictures / f"COCO_val2014_{row['image_id']:012d}.jpg")}
        for row in asked
    ]
    return {"default": {"validation": rows}}


def vqav2_test_dev(folder: Path) -> Parts:
    def rows(split: str) -> Rows:
        asked = read(folder / f"v2_OpenEnded_mscoco_{split}2015_questions.json")["questions"]
        picture = image(folder / "test2015" / "COCO_test2015_000000000007.jpg")
        return [row | {"image": picture, "answers": None, "answer_type": None} for row in asked]

    return {"default": {"testdev": rows("test-dev"), "test": rows("test")}}


def gqa(folder: Path) -> Parts:
    asked = read(folder / "testdev_balanced_questions.json")
    rows = [{"id": name, "isBalanced": True, "fullAnswer": "", **row} for name, row in asked.items()]
    pictures = [{"id": name, "image": image(folder / "images" / f"{name}.jpg")} for name in ("n1", "n0")]
    pictures.append({"id": "n9", "image": {"bytes": files.picture(9, "JPEG"), "path": "n9.jpg"}})
    return {
        "testdev_balanced_images": {"testdev": pictures},
        "testdev_balanced_instructions": {"testdev": rows},
    }


def vizwiz(folder: Path) -> Parts:
    def row(told: dict[str, Any], split: str) -> dict[str, Any]:
        said = [one["answer"] for one in told["answers"]] if "answers" in told else None
        return {
            "question_id": told["image"].removesuffix(".jpg"),
            "image": image(folder / split / told["image"]),
            "question": told["question"],
            "answers": said,
            "category": told.get("answer_type"),
        }

    return {"default": {split: [row(told, split) for told in read(folder / f"{split}.json")] for split in VIZWIZ}}


VIZWIZ = ("val", "test")


def textvqa(folder: Path) -> Parts:
    read_there = {row["image_id"]: row["ocr_tokens"] for row in read(folder / files_ocr())["data"]}
    rows = [
        row
        | {
            "image": image(folder / "train_images" / f"{row['image_id']}.jpg"),
            "image_classes": ["Camera"],
            "ocr_tokens": read_there[row["image_id"]],
        }
        for row in read(folder / "TextVQA_0.5.1_val.json")["data"]
    ]
    return {"default": {"validation": rows}}


def files_ocr() -> str:
    return "TextVQA_Rosetta_OCR_v0.2_val.json"


def pope(folder: Path) -> Parts:
    def rows(category: str) -> Rows:
        lines = (folder / f"coco_pope_{category}.json").read_text().splitlines()
        return [
            {
                "id": str(number),
                "question_id": str(row["question_id"]),
                "question": row["text"],
                "answer": row["label"],
                "image_source": row["image"].removesuffix(".jpg"),
                "image": image(folder / "val2014" / row["image"]),
                "category": category,
            }
            for number, row in enumerate(map(json.loads, lines))
        ]

    full = {category: rows(category) for category in ("adversarial", "popular", "random")}
    return {"Full": full, "default": {"test": [row for category in full.values() for row in category]}}


def mme(folder: Path) -> Parts:
    rows = []
    for path in sorted(folder.rglob("*.txt"), reverse=True):
        category = path.relative_to(folder).parts[0]
        picture = next(folder.joinpath(category).rglob(f"{path.stem}.jpg"))
        for line in path.read_text().splitlines():
            question, answer = line.split("\t")
            told = {"question_id": f"{category}/{picture.name}", "question": question, "answer": answer}
            rows.append(told | {"image": image(picture), "category": category})
    return {"default": {"test": rows}}


def scienceqa(folder: Path) -> Parts:
    problems = read(folder / "problems.json")
    rows = [
        {key: value for key, value in problems[name].items() if key != "split"}
        | {"image": image(folder / "images" / "test" / name / "image.png") if problems[name]["image"] else None}
        for name in read(folder / "pid_splits.json")["test"]
    ]
    with_pictures = [row for row in rows if row["image"]]
    return {"ScienceQA-FULL": {"test": rows}, "ScienceQA-IMG": {"test": with_pictures}}


def mmbench(folder: Path) -> Parts:
    import base64

    (path,) = folder.glob("*.tsv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    pictures = {row["index"]: row["image"] for row in rows}
    made = []
    for row in rows:
        text = row["image"] if len(row["image"]) > 64 else pictures[row["image"]]
        told = {key: value or None for key, value in row.items() if key not in ("image", "l2-category", "hint")}
        content = {"bytes": base64.b64decode(text), "path": None}
        told |= {"index": int(row["index"]), "hint": row["hint"] or "nan", "L2-category": row["l2-category"] or None}
        made.append(told | {"image": content})
    language = "cn" if "cn" in path.name.lower().split("_") or path.name.endswith("CN.tsv") else "en"
    return {language: {"test" if "TEST" in path.name else "dev": made}}


def mmvet(folder: Path) -> Parts:
    rows = [
        {
            "question_id": name,
            "image": image(folder / "images" / row["imagename"]),
            "question": row["question"],
            "answer": row["answer"],
            "image_source": row["imagesource"],
            "capability": ",".join(row["capability"]),
        }
        for name, row in read(folder / "mm-vet.json").items()
    ]
    return {"default": {"test": rows}}


BUILDERS = {
    "vqav2": vqav2,
    "vqav2-test-dev": vqav2_test_dev,
    "vizwiz": vizwiz,
    "vizwiz-test": vizwiz,
    "textvqa": textvqa,
    "textvqa-ocr": textvqa,
    "gqa": gqa,
    "pope": pope,
    "mme": mme,
    "scienceqa": scienceqa,
    "mmbench": mmbench,
    "mmbench-test": mmbench,
    "mmbench-cn": mmbench,
    "mmbench-cn-test": mmbench,
    "mm-vet": mmvet,
}


def dataset(name: str, official: Path, folder: Path) -> Path:
    """The dataset of a benchmark with the content of its official files."""
    return publish(folder, BUILDERS[name](official))


def changed(parts: Parts, **columns: Any) -> Parts:
    """The same rows with columns replaced by a value, or taken away by None."""

    def row(told: dict[str, Any]) -> dict[str, Any]:
        left = {key: value for key, value in told.items() if columns.get(key, value) is not None}
        return left | {key: value for key, value in columns.items() if value is not None}

    return {config: {split: [row(one) for one in rows] for split, rows in of.items()} for config, of in parts.items()}


__all__: Sequence[str] = ("BUILDERS", "changed", "dataset", "publish")
