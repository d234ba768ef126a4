"""The wheel and the sdist as they would be published, and environments with nothing else of headwise in them."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Environment:
    """A virtual environment that sees the packages of this one, but not its headwise."""

    folder: Path

    @property
    def python(self):
        return self.folder / "bin" / "python"

    def run(self, *words, **options):
        """A program of the environment, away from the sources."""
        line = [str(self.folder / "bin" / words[0]), *map(str, words[1:])]
        return subprocess.run(line, cwd=self.folder, capture_output=True, text=True, check=False, **options)

    def pip(self, *words):
        done = self.run("python", "-m", "pip", "--disable-pip-version-check", "-q", *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, path):
        """One package, without those it needs, which are there, and built with what is there."""
        self.pip("install", "--no-deps", "--no-build-isolation", "--no-index", path)


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """The folder with what ``hatchling build`` makes."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def wheel(dist):
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(dist):
    (found,) = dist.glob("*.tar.gz")
    return found


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """A function that makes a clean environment."""

    def make(name):
        folder = tmp_path_factory.mktemp(name) / "venv"
        venv.create(folder, with_pip=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        # A path in a .pth file is searched, but .pth files behind it are not read: an editable headwise stays unseen.
        seen = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "base.pth").write_text("\n".join(seen) + "\n")
        return Environment(folder)

    return make


@pytest.fixture(scope="session")
def from_wheel(environment, wheel):
    made = environment("from-wheel")
    made.install(wheel)
    return made
