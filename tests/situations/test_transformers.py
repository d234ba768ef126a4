"""transformers' own modelling and generation tests, with a recipe attached that keeps everything.

None may fail that passes without, but for refusals. Their files come from the source distribution of the installed
version, which pip downloads; it has the modelling tests and not those of generation. ``HEADWISE_TRANSFORMERS=FOLDER``
names a checkout of the same version instead, whose tests of our families run as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import transformers

BESIDE = Path(__file__).parent / "theirs"
STUBS = {
    "tests/exporters/test_export.py": "ExportTesterMixin",
    "tests/generation/test_utils.py": "GenerationTesterMixin",
}
"""What the source distribution leaves out, and the name the modelling tests import from there."""

OF_FAMILIES = ("gpt_neox", "llama", "mistral", "qwen2", "qwen3", "llava", "llava_next", "qwen2_5_vl")
MAPS = "attention maps (output_attentions) are not made where KV entries are evicted"
REFUSALS = (
    ("test_attention_outputs", MAPS),
    ("test_capture_outputs_decorator", MAPS),
    ("test_eager_matches_sdpa_inference_24_fp32_pad_left_output_attentions", MAPS),
    ("test_model_outputs_equivalence", MAPS),
    ("test_retain_grad_hidden_states_attentions", MAPS),
    ("Qwen2.test_sliding_window_mask", MAPS),
    ("Qwen3.test_sliding_window_mask", MAPS),
    ("gradient_checkpointing", "gradient checkpointing takes the cache from the layers"),
)
"""Tests that ask for what headwise refuses, as (part of the name, part of the sentence)."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """A folder with transformers' tests, and ours beside them."""
    root = tmp_path_factory.mktemp("transformers")
    named = os.environ.get("HEADWISE_TRANSFORMERS")
    if named:
        shutil.copytree(Path(named) / "tests", root / "tests")
    else:
        _download(root)
    shutil.copy(BESIDE / "attached.py", root / "headwise_attached.py")
    shutil.copy(BESIDE / "models.py", root / "tests" / "test_headwise_models.py")
    return root


def _download(root: Path) -> None:
    pytest.importorskip("parameterized", reason="transformers' tests need `pip install parameterized`")
    wanted = f"transformers=={transformers.__version__}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        "transformers",
        "-d",
        root,
        wanted,
    ]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"the source distribution of {wanted} cannot be downloaded here")
    with tarfile.open(next(root.glob("*.tar.gz"))) as archive:
        archive.extractall(root / "whole", filter="data")
    shutil.move(next((root / "whole").iterdir()) / "tests", root / "tests")
    for path, name in STUBS.items():
        if not (root / path).exists():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(f"class {name}:\n    pass\n")
    for folder in (root / "tests", *(root / "tests").iterdir()):
        if folder.is_dir():
            (folder / "__init__.py").touch()


def outcomes(root: Path, attach: bool) -> dict[str, str | None]:
    """Test -> None where it passed or was skipped, else what went wrong."""
    files = ["tests/test_headwise_models.py", *(f"tests/models/{name}" for name in OF_FAMILIES)]
    report = root / f"attached-{attach}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "headwise_attached", "-W", "ignore", f"--junitxml={report}",
               *(name for name in files if (root / name).exists())]  # fmt: skip
    environment = {**os.environ, "HEADWISE_ATTACH": str(int(attach)), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    told = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert report.exists(), told.stdout[-2000:] + told.stderr[-2000:]
    found = {}
    for test in ElementTree.parse(report).iter("testcase"):
        wrong = [part.get("message", "") for part in test if part.tag in ("failure", "error")]
        found[f"{test.get('classname')}.{test.get('name')}"] = wrong[0] if wrong else None
    return found


@pytest.mark.slow
def test_nothing_fails_that_passes_without_a_recipe(theirs):
    without, attached = outcomes(theirs, False), outcomes(theirs, True)
    assert sum(told is None for told in without.values()) > 100
    broken = {name: told for name, told in attached.items() if told is not None and without.get(name, "") is None}
    listed = [name for name, told in broken.items() if any(part in name and why in told for part, why in REFUSALS)]
    assert {name: told for name, told in broken.items() if name not in listed} == {}
