"""sbatch, srun, sacct and scancel in one program that runs jobs on this machine; SLURM_FAKE is its folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path


def install(folder: Path) -> Path:
    """The four programs in ``folder``, which is to come first in PATH."""
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        (folder / name).write_text(f"#!{sys.executable} -S\n{Path(__file__).read_text()}")
        (folder / name).chmod(0o755)
    return folder


def sbatch(home: Path, script: str) -> None:
    text = Path(script).read_text()
    number = 1 + len(list(home.glob("script-*")))
    (home / f"script-{number}").write_text(text)
    array = re.search(r"--array=0-([0-9]+)", text)
    for task in range(int(array[1]) + 1) if array else [None]:
        name = f"{number}" if task is None else f"{number}_{task}"
        told = {"SLURM_JOB_ID": str(number)}
        if task is not None:
            told |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
        process = subprocess.Popen(
            ["bash", "-c", f"bash {home}/script-{number}; echo $? > {home}/end-{name}"],
            env={**os.environ, **told}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        (home / f"pid-{name}").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def srun(arguments: list[str]) -> None:
    streams = {"--output": 1, "--error": 2}
    while arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option in streams:
            path = arguments.pop(0)
            for mark, name in {"%A": "ARRAY_JOB_ID", "%a": "ARRAY_TASK_ID", "%j": "JOB_ID"}.items():
                path = path.replace(mark, os.environ.get(f"SLURM_{name}", ""))
            handle = os.open(path.replace("%t", "0"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, streams[option])
    os.execvp(arguments[0], arguments)


def sacct(home: Path) -> None:
    print("JobID|State|NodeList")
    for path in home.glob("pid-*"):
        name = path.name.removeprefix("pid-")
        end = home / f"end-{name}"
        said = end.read_text().strip() if end.exists() else ""
        state = {"": "RUNNING", "0": "COMPLETED"}.get(said, "FAILED")
        print(f"{name}|{state}|here")


def scancel(home: Path, name: str) -> None:
    pid = int((home / f"pid-{name}").read_text())
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    (home / f"end-{name}").write_text("cancelled")


if __name__ == "__main__":
    program, home = Path(sys.argv[0]).name, Path(os.environ["SLURM_FAKE"])
    if program == "sbatch":
        sbatch(home, sys.argv[1])
    elif program == "srun":
        srun(sys.argv[1:])
    elif program == "sacct":
        sacct(home)
    elif program == "scancel":
        scancel(home, sys.argv[1])
