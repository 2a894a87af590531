"""Scripts for clusters: they start what they say, go on when time is up, leave out no recipe."""

import math
import os
import re
import shlex
import subprocess
import time
from types import SimpleNamespace

import psutil
import pytest

from richsem.__main__ import parser
from richsem.operations.recipe_book import configure, recipe_names
from richsem.paths import NOTEBOOKS, ROOT
from richsem.training import stopping
from richsem.workbook import notebook_files, results
from richsem.workbook.studies import STUDIES, runs_behind

FOLDER = ROOT / "scripts" / "cluster"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
LINES = [line.strip("`") for line in re.findall(r"^sbatch.*|`sbatch[^`]*`", TEXT, re.MULTILINE)]
# Trainings of the paper's size that other texts start, without Slurm.
LAUNCH = (
    r"(?:\w+=\S+ )*(?:accelerate launch|torchrun|bash \S+/torchrun\.sh|python -m richsem train) "
)
CELLS = [c.source for p in NOTEBOOKS.glob("*.ipynb") for c in notebook_files.read(p).cells]
FILES = [ROOT / "README.md", NOTEBOOKS / "README.md", FOLDER / "README.md", FOLDER / "torchrun.sh"]
SAID = "\n".join([*CELLS, *(p.read_text(encoding="utf-8") for p in FILES)]).replace("\\\n", "")
LAUNCHED = re.findall(rf"^(?:# +)?({LAUNCH}.*--profile paper(?!.*--dry-run).*)", SAID, re.MULTILINE)
# Stand-ins for Slurm: every task is a process here, and each call leaves a line.
STUBS = {
    "scontrol": '[ "$1" = show ] && echo node1 && exit\necho scontrol "$@" >> said',
    "srun": 'echo srun "$1" >> said; shift; code=0\nfor task in 0 1; do SLURM_PROCID=$task '
    'SLURM_LOCALID=$task "$@" || code=$?; done\nexit $code',
    "python": 'echo $RANK$LOCAL_RANK$WORLD_SIZE $MASTER_ADDR "$*" >> said; exit ${CODE:-0}',
    "sbatch": "echo 7; echo sbatch $* >> said",
    "torchrun": 'echo torchrun "$@" >> said; exit ${TORCHRUN:-0}',
}
REGISTERED = (
    'if [ "$3" = runs ]; then printf "baseline-1\\ncenternet2-2\\ncenternet2_detic-3\\n"; fi\n'
)


def script(folder, name, *words, **variables):
    """Exit code of a script, and what it called."""
    for stub, body in STUBS.items():
        registered = REGISTERED if stub == "python" else ""
        (folder / stub).write_text(f"#!/bin/bash\n{registered}{body}\n")
        (folder / stub).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    env = os.environ | slurm | {"RICHSEM_CACHE": "cache"} | variables
    env["PATH"] = f"{folder}:{env['PATH']}"
    done = subprocess.run(["bash", FOLDER / name, *words], cwd=folder, env=env)
    said = folder / "said"
    return done.returncode, said.read_text().splitlines() if said.exists() else []


@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_job_starts_a_process_per_gpu_and_is_queued_again_when_time_was_up(tmp_path, code):
    ended, said = script(tmp_path, "train.sbatch", "richsem", "--set", "a=b c", CODE=str(code))
    train = "node1 -m richsem train richsem --set a=b c"
    again = ["scontrol requeue 5"] * (code == 75)
    assert said == ["srun --kill-on-bad-exit=1", f"002 {train}", f"112 {train}", *again]
    assert ended == (0 if code == 75 else code)


@pytest.mark.parametrize("told", ["SLURM_JOB_END_TIME", "--time-limit"])
@pytest.mark.parametrize(
    ("left", "step", "asked"), [(59, 0, True), (300, 0, False), (300, 79, False), (300, 81, True)]
)
def test_the_clock_asks_for_an_end_a_minute_and_two_steps_before_the_limit(
    told, left, step, asked, monkeypatch
):
    now = int(time.time())
    for name in (stopping._END, stopping._SLURM_END):  # of two limits the first counts
        monkeypatch.setenv(name, str(now + 9_999))
    if told == "--time-limit":  # counts from the start of the process
        stopping.end_after(now + left - int(psutil.Process().create_time()))
    else:
        monkeypatch.setenv(told, str(now + left))
    moments = iter([now, now + step])  # at the start, and after the first step
    monkeypatch.setattr(stopping, "time", SimpleNamespace(time=lambda: next(moments)))
    with stopping.Stop() as stop:
        assert stop.asked() == (False, asked)


def test_every_run_behind_a_result_becomes_a_job_after_the_one_it_starts_from(tmp_path):
    ended, said = script(tmp_path, "submit.sh", "table4_versus_detic", "DATA", "--partition=gpu")
    assert ended == 0
    common = "sbatch --parsable --partition=gpu"
    train = FOLDER / "train.sbatch"
    assert said[1:] == [
        f"{common} {train} baseline-1",
        f"{common} {train} centernet2-2",
        f"{common} --dependency=afterok:7 {train} centernet2_detic-3",
    ]
    words = shlex.split(said[0])[2:]
    assert callable(parser().parse_args(words).run)


def test_without_a_queue_each_node_says_where_the_first_one_is(tmp_path):
    ended, (said,) = script(tmp_path, "torchrun.sh", "richsem", NODES="4", HEAD="node01")
    assert ended == 0 and said.endswith("-m richsem train richsem")
    assert "--nnodes=4 --nproc-per-node=8" in said and "--rdzv-endpoint=node01:29500" in said


def test_without_a_queue_the_runs_behind_a_result_follow_one_another(tmp_path):
    words = "table4_versus_detic", "DATA", "--time-limit", "9:00"
    ended, (registers, *said) = script(tmp_path, "one_by_one.sh", *words, NODES="2", GPUS="4")
    assert ended == 0 and all("--nnodes=2 --nproc-per-node=4" in line for line in said)
    trained = [line.partition(" -m ")[2] for line in said]
    names = ["baseline-1", "centernet2-2", "centernet2_detic-3"]
    assert trained == [f"richsem train {name} --time-limit 9:00" for name in names]
    assert callable(parser().parse_args(shlex.split(registers)[2:]).run)
    # What fails ends them all; the same words go on from there.
    assert script(tmp_path, "one_by_one.sh", *words, TORCHRUN="1")[0] == 1
    assert len((tmp_path / "said").read_text().splitlines()) == 4 + 2


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_understood_and_its_batches_can_be_shared_out(line):
    words = shlex.split(line)
    at = words.index("scripts/cluster/train.sbatch")
    options = parser().parse_args(["train", *words[at + 1 :], "--dry-run"])
    script = (FOLDER / "train.sbatch").read_text() + " ".join(words[:at])
    sizes = [re.findall(rf"--{name}=(\d+)", script)[-1] for name in ("nodes", "ntasks-per-node")]
    train = configure(options.recipe, options.profile, settings=options.settings).train
    processes = int(sizes[0]) * int(sizes[1]) * train.accumulation
    assert train.batch_size % processes == 0 == train.extra_batch_size % processes


@pytest.mark.parametrize("line", LAUNCHED)
def test_without_slurm_each_process_looks_at_two_images_at_a_time_as_published(line):
    told = dict(re.findall(r"(NODES|GPUS|num_processes|nnodes|nproc-per-node)[= ](\d+)", line))
    if "torchrun.sh" in line:
        told = {"NODES": 1, "GPUS": 8} | told
    words = re.split(r"richsem train |torchrun\.sh ", line)[1]
    options = parser().parse_args(["train", *shlex.split(words)])
    train = configure(options.recipe, options.profile, settings=options.settings).train
    shares = math.prod(map(int, told.values())) * train.accumulation
    assert train.batch_size == 2 * shares and train.extra_batch_size % shares == 0


def test_no_recipe_of_the_papers_tables_is_left_out():
    words = [shlex.split(line) for line in LINES]
    named = {one[one.index("scripts/cluster/train.sbatch") + 1] for one in words}
    assert named == set(recipe_names())
    writers = results.writers()
    papers = [name for name in STUDIES if not results.NOTEBOOKS[writers[name]].asked]
    for script in ("submit", "one_by_one"):
        assert set(re.findall(rf"{script}\.sh (\w+)", TEXT)) == set(papers)
    for result in papers:
        for config in runs_behind(result, "paper", root="DATA"):
            assert config.train.batch_size % 8 == 0 == config.train.extra_batch_size % 8
            # What starts from another run is one that `submit.sh` lets wait.
            second = config.name.startswith("centernet2_")
            assert config.init.startswith("run:centernet2-") == second
