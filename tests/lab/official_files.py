"""Small folders in the official layouts of the ten benchmarks, with pictures of a few pixels."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def picture(number: int = 0, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 7), (number % 256, 40, 90)).save(stream, kind)
    return stream.getvalue()


def save(path: Path, content: bytes | str | object) -> Path:
    """Write bytes or text as they are, and anything else as JSON with a member a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=0), encoding="utf-8")
    return path


def people(*answers: str, filler: str = "other") -> list[dict[str, object]]:
    """Ten answers as VQAv2 and VizWiz list them, the given ones first."""
    said = [*answers, *[filler] * (10 - len(answers))]
    return [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i, answer in enumerate(said, start=1)]


def vqav2(folder: Path) -> Path:
    asked = [(458752000, 458752, "What is this photo taken looking through?", "other", ["net"] * 9 + ["mesh"])]
    asked += [(458752001, 458752, "Is the net blue?", "yes/no", ["no"] * 10)]
    asked += [(262148000, 262148, "How many people?", "number", ["2", "2", "2", *["3"] * 7])]
    told = {"info": {}, "license": {}, "data_subtype": "val2014"}
    save(
        folder / "v2_OpenEnded_mscoco_val2014_questions.json",
        told | {"questions": [{"image_id": image, "question": q, "question_id": i} for i, image, q, _, _ in asked]},
    )
    rows = [
        {"question_id": i, "image_id": image, "answer_type": kind, "question_type": "is", "answers": people(*answers)}
        for i, image, _, kind, answers in asked
    ]
    save(folder / "v2_mscoco_val2014_annotations.json", told | {"annotations": rows[::-1]})
    for image in (458752, 262148):
        save(folder / "val2014" / f"COCO_val2014_{image:012d}.jpg", picture(image, "JPEG"))
    return folder


def vqav2_test_dev(folder: Path) -> Path:
    asked = [{"image_id": 7, "question": f"Is it {word}?", "question_id": 70 + i} for i, word in enumerate("abc")]
    save(folder / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": asked[1:]})
    save(folder / "v2_OpenEnded_mscoco_test2015_questions.json", {"questions": asked})
    save(folder / "test2015" / "COCO_test2015_000000000007.jpg", picture(7, "JPEG"))
    return folder


def vizwiz(folder: Path) -> Path:
    rows = [
        {
            "image": "VizWiz_val_00000000.jpg",
            "question": "Can you tell me what this medicine is please?",
            "answers": people(*["night time"] * 4),
            "answer_type": "other",
            "answerable": 1,
        },
        {
            "image": "VizWiz_val_00000001.jpg",
            "question": "Is my monitor on?",
            "answers": people(*["unanswerable"] * 10),
            "answer_type": "unanswerable",
            "answerable": 0,
        },
    ]
    save(folder / "val.json", rows)
    save(folder / "test.json", [{"image": "VizWiz_test_00000000.jpg", "question": "What is this?"}])
    for i, row in enumerate(rows):
        save(folder / "val" / str(row["image"]), picture(i, "JPEG"))
    save(folder / "test" / "VizWiz_test_00000000.jpg", picture(2, "JPEG"))
    return folder


def textvqa(folder: Path) -> Path:
    rows = [
        {"question_id": 34602 + i, "image_id": f"{i:016x}", "question": question, "answers": answers, "set_name": "val"}
        for i, (question, answers) in enumerate(
            [
                ("what is the brand of this camera?", ["dakota"] * 6 + ["dakota digital"] * 4),
                ("what does the small white text spell?", ["copenhagen"] * 10),
            ]
        )
    ]
    save(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "dataset_version": "0.5.1", "data": rows})
    ocr = [{"image_id": "0000000000000001", "ocr_tokens": [], "ocr_info": []}]
    ocr += [{"image_id": "0000000000000000", "ocr_tokens": ["DAKOTA", "DIGITAL"], "ocr_info": []}]
    save(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", {"dataset_type": "val", "data": ocr})
    for row in rows:
        save(folder / "train_images" / f"{row['image_id']}.jpg", picture(0, "JPEG"))
    return folder


def gqa(folder: Path) -> Path:
    rows = {}
    for i, (question, answer, kind) in enumerate(
        [("Is it overcast?", "no", "verify"), ("Who is wearing the dress?", "woman", "query")]
    ):
        types = {"detailed": "weatherVerify", "semantic": "global", "structural": kind}
        rows[f"2019029{i}"] = {"imageId": f"n{i}", "question": question, "answer": answer, "types": types}
        save(folder / "images" / f"n{i}.jpg", picture(i, "JPEG"))
    save(folder / "testdev_balanced_questions.json", rows)
    return folder


def pope(folder: Path) -> Path:
    for subset in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": i,
                "image": f"COCO_val2014_{i // 3:012d}.jpg",
                "text": f"Is there a {thing}?",
                "label": said,
            }
            for i, (thing, said) in enumerate([("cat", "yes"), ("dog", "no"), ("car", "yes"), ("bus", "no")], start=1)
        ]
        save(folder / f"coco_pope_{subset}.json", "".join(json.dumps(row) + "\n" for row in rows))
    for i in range(2):
        save(folder / "val2014" / f"COCO_val2014_{i:012d}.jpg", picture(i, "JPEG"))
    return folder


def mme(folder: Path, categories: Sequence[str] = PERCEPTION + COGNITION) -> Path:
    for number, category in enumerate(categories):
        for i in range(2):
            lines = f"Is it {category}? Please answer yes or no.\tYes\nIs it not? Please answer yes or no.\tNo\n"
            if number % 2:  # the release has both layouts
                save(folder / category / "images" / f"{i:04d}.jpg", picture(i, "JPEG"))
                save(folder / category / "questions_answers_YN" / f"{i:04d}.txt", lines)
            else:
                save(folder / category / f"{i:04d}.jpg", picture(i, "JPEG"))
                save(folder / category / f"{i:04d}.txt", lines)
    return folder


def scienceqa(folder: Path) -> Path:
    states = ["West Virginia", "Louisiana", "Arizona", "Oklahoma"]
    usual = {"task": "closed choice", "grade": "grade2", "lecture": "", "solution": "", "split": "test"}
    problems = {
        "4": usual
        | {
            "question": "Which of these states is farthest north?",
            "choices": states,
            "answer": 0,
            "hint": "",
            "image": "image.png",
            "subject": "social science",
        },
        "5": usual
        | {"question": "No picture?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": None, "subject": "x"},
        "11": usual
        | {
            "question": "Select the fish.",
            "choices": ["sturgeon", "cat"],
            "answer": 1,
            "hint": "Figure: sturgeon.",
            "image": "image.png",
            "subject": "natural science",
        },
    }
    save(folder / "problems.json", problems)
    save(folder / "pid_splits.json", {"train": ["1"], "test": ["11", "5", "4"]})
    for name in ("4", "11"):
        save(folder / "images" / "test" / name / "image.png", picture(int(name)))
    return folder


COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category")


def circular(index: int, question: str, options: Sequence[str], right: int, **cells: str) -> list[dict[str, str]]:
    """All passes of one question: options rotated by one from pass to pass."""
    passes = []
    for turn in range(len(options)):
        rotated = [*options[turn:], *options[:turn]]
        row = dict.fromkeys(COLUMNS, "") | dict(zip("ABCD", rotated, strict=False)) | cells
        answer = "ABCD"[(right - turn) % len(options)]
        passes.append(row | {"index": str(index + 1_000_000 * turn), "question": question, "answer": answer})
    return passes


def table(path: Path, rows: Iterable[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def mmbench(folder: Path, name: str = "mmbench_dev_20230712.tsv") -> Path:
    """A question of four options with its picture in every pass, and one of two whose second pass names the first."""
    encoded = [base64.b64encode(picture(i)).decode() for i in range(2)]
    first = circular(241, "Which is the main topic?", ["food", "people", "cars", "sky"], 1, image=encoded[0])
    second = circular(
        252,
        "Who is older?",
        ["Ann", "Bob"],
        0,
        image=encoded[1],
        hint="Read:\n\tAnn is 5,\nBob is 4.",
        **{"category": "x"},
    )
    second[1]["image"] = "252"
    for row in first:
        row |= {"category": "image_topic", "l2-category": "coarse_perception", "source": "made"}
    rows = [first[0], second[0], *first[1:], second[1]]
    table(folder / name, rows)
    return folder


def mmbench_cn(folder: Path) -> Path:
    return mmbench(folder, "mmbench_dev_cn_20231003.tsv")


def mmvet(folder: Path) -> Path:
    rows = {
        "v1_0": {
            "imagename": "v1_0.png",
            "question": "What is x in the equation?",
            "answer": "-1<AND>-5",
            "imagesource": "https://example.org",
            "capability": ["ocr", "math"],
        },
        "v1_1": {
            "imagename": "v1_1.png",
            "question": "What occasion is it?",
            "answer": "christmas<OR>x-mas",
            "imagesource": "https://example.org",
            "capability": ["rec"],
        },
    }
    save(folder / "mm-vet.json", rows)
    for name in rows:
        save(folder / "images" / f"{name}.png", picture())
    return folder


WRITERS = {
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
    "mmbench-test": lambda folder: mmbench(folder, "MMBench_TEST_EN.tsv"),
    "mmbench-cn": mmbench_cn,
    "mmbench-cn-test": lambda folder: mmbench(folder, "MMBench_TEST_CN.tsv"),
    "mm-vet": mmvet,
}
