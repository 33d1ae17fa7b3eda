"""Launch recipes: what --dry-run prints is what would run, quoted; what is missing is refused; fakes see a real run."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CATEGORY = '--config.data.category=kids\' books "x" $HOME'
FLAGS = ["--config=configs/igd.py", "--workdir=bucket/run", CATEGORY]
KEPT = {"docker": "runs", "sky": "/bucket", "tpu_vm": "bucket", "tpu_pod": "bucket"}
"""Where runs are kept when the machine is gone."""
NEEDS = {
    "local": {},
    "docker": {},
    "slurm": {"GPUS": "8"},
    "sky": {"ACCELERATORS": "H100:8", "BUCKET": "gs://bucket"},
    "tpu_vm": {"NAME": "igd", "ZONE": "z", "ACCELERATOR": "v5litepod-8", "BUCKET": "bucket"},
    "tpu_pod": {"NAME": "igd", "ZONE": "z", "ACCELERATOR": "v6e-16", "BUCKET": "bucket"},
}
TRAIN = ["python", "-m", "igd_jax.train"]


def launch(recipe: str, *arguments: str, path: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a recipe with no settings but these, and with the programs of `path` before all others."""
    environment = {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"], "HOME": "/nowhere"}
    script = ROOT / "launch" / f"{recipe}.sh"
    return subprocess.run(
        ["bash", script, *arguments], env=environment | settings, capture_output=True, text=True, cwd=path
    )


def flags_of(recipe: str) -> list[str]:
    """FLAGS, with a workdir that the recipe takes."""
    return [FLAGS[0], f"--workdir={KEPT.get(recipe, 'bucket')}/run", CATEGORY]


def dry(recipe: str, path: Path | None = None, **settings: str) -> list[list[str]]:
    """The commands of a dry run, each split into words as a shell does."""
    done = launch(recipe, "--dry-run", *flags_of(recipe), **NEEDS[recipe], **settings, path=path)
    assert (done.returncode, done.stderr) == (0, "")
    return [shlex.split(line) for line in done.stdout.splitlines()]


def innermost(words: list[str]) -> list[str]:
    """The words of the training command, out of the command that sends them somewhere."""
    for word in words:
        for start in ("--command=", "--wrap=", "--env=TRAIN="):
            if word.startswith(start):
                words = shlex.split(word.removeprefix(start).partition("; code=")[0])
    return words


@pytest.mark.parametrize("recipe", NEEDS)
def test_every_recipe_ends_in_the_same_command_with_the_arguments_as_they_were(recipe):
    (words,) = [found for line in dry(recipe) if CATEGORY in (found := innermost(line))]
    assert words[-len(FLAGS) :] == flags_of(recipe)
    if recipe == "sky":  # whose job has the command
        assert "-m igd_jax.train $hosts $TRAIN" in (ROOT / "launch" / "sky.yaml").read_text()
        return
    program, *rest = [word for word in words[: -len(FLAGS)] if word != "-P"][-len(TRAIN) :]
    assert [Path(program).name, *rest] == TRAIN


@pytest.mark.parametrize("recipe", NEEDS)
def test_data_of_a_url_is_a_flag(recipe):
    lines = map(innermost, dry(recipe, DATA="gs://bucket/my data"))
    assert any(words[-1] == "--config.data.dir=gs://bucket/my data" for words in lines)


@pytest.mark.parametrize("recipe", ["local", "docker", "tpu_pod"])
def test_local_data_are_carried(recipe, tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    (data / "meta.json").write_text("{}")
    said = [" ".join(words) for words in dry(recipe, DATA=str(data))]
    wanted = {
        "local": [f"--config.data.dir={data}"],
        "docker": [f"--volume={data}:/data:ro", "--config.data.dir=/data"],
        "tpu_pod": [f"-C {data} .", "data.tgz igd:data.tgz --worker=all", "--config.data.dir=data"],
    }
    assert all(any(part in line for line in said) for part in wanted[recipe]), said


@pytest.mark.parametrize("recipe", NEEDS)
def test_code_is_a_checkout_or_a_url_with_a_ref(recipe):
    url = "https://host/igd_jax.git"
    said = "\n".join(" ".join(words) for words in dry(recipe, CODE=f"{url}#v1"))
    wanted = {"docker": f"{url}#v1"}
    assert wanted.get(recipe, f"git clone --no-checkout {url} igd_jax; git -C igd_jax fetch {url} v1") in said


@pytest.mark.parametrize(("recipe", "name"), [(recipe, name) for recipe, needs in NEEDS.items() for name in needs])
def test_a_missing_setting_is_one_line(recipe, name):
    done = launch(recipe, "--dry-run", *flags_of(recipe), **(NEEDS[recipe] | {name: ""}))
    assert (done.returncode, done.stdout) == (2, "")
    wanted = f"error: the setting {name} is missing; '{ROOT}/launch/{recipe}.sh --help' says what it is, or "
    if (recipe, name) == ("tpu_vm", "BUCKET"):
        wanted = "error: igd is deleted in the end, and its disk too; set BUCKET, where runs are kept, or KEEP=1\n"
    assert done.stderr.startswith(wanted)
    assert done.stderr.count("\n") == 1


TOOLS = dict.fromkeys(("gcloud", "sky", "docker", "sbatch", "uv", "curl", "mkdir"), "") | {"sleep": "kill $PPID"}
"""What recipes make something with, and wait for it."""


@pytest.mark.parametrize("recipe", NEEDS)
@pytest.mark.parametrize("given", [[], ["--workdir"], ["--workdir="]], ids=" ".join)
def test_without_a_workdir_nothing_is_made(recipe, given, tmp_path):
    folder = tools(tmp_path / "bin", **TOOLS)
    done = launch(recipe, *given, **NEEDS[recipe], path=folder)
    example = f"for example: {ROOT}/launch/{recipe}.sh --config=igd --workdir={KEPT.get(recipe, 'runs')}/igd"
    assert done.stderr == f"error: no --workdir among the arguments of igd_jax.train; {example}\n"
    assert (done.returncode, done.stdout, (folder / "calls").exists()) == (2, "", False)


@pytest.mark.parametrize("recipe", KEPT)
@pytest.mark.parametrize("workdir", ["out/igd", "{}s/igd", "{}/../igd", "gs://bucket/igd", "{}/a --workdir=out/igd"])
def test_a_workdir_that_would_be_deleted_is_refused_before_anything_is_made(recipe, workdir, tmp_path):
    folder = tools(tmp_path / "bin", **TOOLS)
    words = f"--workdir={workdir.format(KEPT[recipe])}".split()
    done = launch(recipe, FLAGS[0], *words, **NEEDS[recipe], path=folder)
    place, told = KEPT[recipe], words[-1].removeprefix("--workdir=")
    assert done.stderr.startswith(f"error: --workdir is {told}, which is deleted in the end; only {place}/ is kept; ")
    assert done.stderr.endswith(f".sh --config=igd --workdir={place}/igd\n")
    assert (done.returncode, done.stderr.count("\n"), (folder / "calls").exists()) == (2, 1, False)


@pytest.mark.parametrize("recipe", ["tpu_pod", "tpu_vm"])
@pytest.mark.parametrize("word", ["data.dir=runs/data", "model.path=/models/Qwen2.5-0.5B", "tokenizer.path=buckets/x"])
def test_data_and_models_that_a_new_machine_lacks_are_refused_before_it_is_made(recipe, word, tmp_path):
    folder = tools(tmp_path / "bin", **TOOLS)
    done = launch(recipe, *flags_of(recipe), f"--config.{word}", **NEEDS[recipe], path=folder)
    assert done.stderr.startswith(
        f"error: --config.{word} names a path of this machine, which a new one lacks; give a URL"
    )
    assert (done.returncode, done.stderr.count("\n"), (folder / "calls").exists()) == (2, 1, False)
    for there in ("model.path=gs://b/model", "data.dir=bucket/data"):
        assert launch(recipe, "--dry-run", *flags_of(recipe), f"--config.{there}", **NEEDS[recipe]).returncode == 0
    settings = NEEDS[recipe] | {"CREATE": "--data-disk=source=d"}
    assert launch(recipe, "--dry-run", *flags_of(recipe), f"--config.{word}", **settings).returncode == 0


@pytest.mark.parametrize("recipe", NEEDS)
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_dry_run_is_one_wherever_it_is_asked_for(recipe, place, tmp_path):
    words = flags_of(recipe)
    words.insert(place, "--dry-run")
    settings = {"CODE": "https://host/x.git", "RUNS": "/runs"}
    folder = tools(tmp_path / "bin", **TOOLS)
    done = launch(recipe, *words, **NEEDS[recipe], **settings, path=folder)
    assert (done.returncode, done.stderr, (folder / "calls").exists()) == (0, "", False)
    said = [shlex.split(line) for line in done.stdout.splitlines()]
    assert said == dry(recipe, folder, **settings)


@pytest.mark.parametrize("recipe", [*NEEDS, "setup", "paper", "claims", "setrec"])
@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--workdir=anywhere", "--help"]], ids=" ".join)
def test_help_is_the_first_lines_and_makes_nothing(recipe, words, tmp_path):
    folder = tools(tmp_path / "bin", **TOOLS)
    done = launch(recipe, *words[recipe == "setup" and -1 :], path=folder)  # which has one argument
    assert (done.returncode, done.stderr, (folder / "calls").exists()) == (0, "", False)
    header = (ROOT / "launch" / f"{recipe}.sh").read_text().partition("\nset -")[0].splitlines()[1:]
    assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in header]


@pytest.mark.parametrize("recipe", NEEDS)
@pytest.mark.parametrize("words", ["--workdir {}", "-workdir {}", "-workdir={}"])
def test_a_workdir_may_have_one_dash_and_be_a_word_of_its_own(recipe, words):
    words = words.format(f"{KEPT.get(recipe, 'anywhere')}/igd").split()
    done = launch(recipe, "--dry-run", *words, **NEEDS[recipe])
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(words) in done.stdout


@pytest.mark.parametrize("workdir", ["/igd_jax/runs/igd", "/scratch/igd", "/scratch", "/more/igd"])
def test_a_container_keeps_what_is_mounted(workdir):
    volumes = "--volume=/scratch:/scratch --shm-size=1g -v /here:/more:rw"
    done = launch("docker", "--dry-run", f"--workdir={workdir}", RUN=volumes)
    assert (done.returncode, done.stderr) == (0, "")
    assert launch("docker", "--dry-run", f"--workdir=/not{workdir}", RUN=volumes).returncode == 2


def test_a_tpu_vm_that_is_left_keeps_any_workdir():
    done = launch("tpu_vm", "--dry-run", "--workdir=runs/igd", **(NEEDS["tpu_vm"] | {"BUCKET": "", "KEEP": "1"}))
    assert (done.returncode, done.stderr) == (0, "")
    assert " delete " not in done.stdout


def test_other_bad_input_is_one_line(tmp_path):
    done = launch("local", *FLAGS, DATA=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "which is not a prepared folder" in done.stderr
    done = launch("sky", *flags_of("sky"), **NEEDS["sky"], path=tools(tmp_path / "none"))
    assert done.returncode == 2
    assert "error: sky is not in PATH; " in done.stderr


def test_setting_up_for_an_accelerator_that_there_is_not_installs_nothing(tmp_path):
    folder = tools(tmp_path / "bin", **TOOLS)
    done = launch("setup", "cdua", path=folder)
    assert (done.returncode, done.stdout, (folder / "calls").exists()) == (2, "", False)
    assert done.stderr == "error: the argument is cdua; expected nothing, for the CPU, or tpu, or cuda\n"


@pytest.mark.parametrize(("recipe", "known"), [("local", "cuda tpu"), ("docker", "cuda")])
def test_an_accelerator_of_another_recipe_is_refused(recipe, known):
    done = launch(recipe, "--dry-run", *flags_of(recipe), ACCELERATOR="v6e-16")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: ACCELERATOR is v6e-16; expected nothing, for the CPU, or one of: {known}\n"


def repository(code: Path) -> None:
    """A checkout, tagged v1, whose setup makes a Python that says the checkout's name and what it is asked."""
    (code / "launch").mkdir(parents=True)
    says = f"printf '#!/bin/sh\\necho \"{code.name} $# $5\"' > .venv/bin/python; chmod +x .venv/bin/python"
    (code / "launch" / "setup.sh").write_text(f'cd "$(dirname "$0")/.."; mkdir -p .venv/bin; {says}')
    git = ["git", "-C", code, "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", code.name], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)


def test_code_of_a_url_is_cloned_once_set_up_and_run_until_it_is_another_url(tmp_path):
    """With the real git."""
    (tmp_path / "here").mkdir()
    for name in ("one", "one", "two"):
        if not (code := tmp_path / name).exists():
            repository(code)
        done = launch("local", *FLAGS, CODE=f"file://{code}#v1", path=tmp_path / "here")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{name} 6 --workdir=bucket/run"), done.stderr


@pytest.mark.parametrize("recipe", ["local", "slurm"])
def test_paths_are_meant_where_the_user_stands(recipe, tmp_path):
    done = launch(recipe, "--dry-run", *FLAGS, **NEEDS[recipe], path=tools(tmp_path / "here", sbatch=""))
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert ["bash", f"{ROOT}/launch/setup.sh"] in [line[:2] for line in words]
    command = innermost(words[-1])
    python = command.index(f"{ROOT}/.venv/bin/python")
    assert command[python + 1 : python + 4] == ["-P", "-m", "igd_jax.train"]  # what lies there is not the package
    assert not any(line[0] == "cd" for line in words)


def test_a_bucket_that_cannot_be_appended_to_is_refused():
    done = launch("sky", "--dry-run", *flags_of("sky"), **(NEEDS["sky"] | {"BUCKET": "s3://mine"}))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: BUCKET is s3://mine; expected gs://NAME, as ")


def test_all_hosts_of_a_slice_read_what_the_first_compiled():
    (line,) = [words for words in dry("tpu_pod") if any("igd_jax.train" in word for word in words)]
    assert "JAX_COMPILATION_CACHE_DIR=$PWD/bucket/.compiled" in innermost(line)


def test_a_slurm_job_has_a_process_per_gpu_and_queues_again_after_saving():
    (job,) = [words for words in dry("slurm", NODES="2") if words[0] == "sbatch"]
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--requeue", "--signal=TERM@120"} <= set(job)
    assert "if test $code = 143; then scontrol requeue $SLURM_JOB_ID; fi; exit $code" in job[-1]


def tools(folder: Path, **programs: str) -> Path:
    """A folder of programs that write their arguments into ``calls`` there, and then do what is given."""
    folder.mkdir()
    for name, does in programs.items():
        told = f'{{ printf "%q " {name} "$@"; echo; }} >> {folder}/calls'
        (folder / name).write_text(f"#!/bin/bash\n{told}\n{does}\n")
        (folder / name).chmod(0o755)
    return folder


QUEUE = """cd "$(dirname "$0")"
case "$*" in
  *" describe "*) cat state 2>/dev/null || { echo NOT_FOUND >&2; exit 1; } ;;
  *" create "*) echo WAITING_FOR_RESOURCES > state ;;
  *" delete "*) rm state ;;
  *igd_jax.train*) if test -e again; then exit 0; fi; touch again; echo SUSPENDED > state; exit 255 ;;
esac"""
"""A queue with one slice, which is preempted once, during training."""


def test_a_preempted_slice_is_made_anew_and_training_goes_on(tmp_path):
    waits = 'cd "$(dirname "$0")"; if grep -q WAITING state; then echo ACTIVE > state; fi'
    folder = tools(tmp_path / "bin", gcloud=QUEUE, sleep=waits)
    done = launch("tpu_pod", *FLAGS, **NEEDS["tpu_pod"], CODE="https://host/x.git", path=folder)
    assert done.returncode == 0, done.stderr
    calls = [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]
    queued = [words[4] for words in calls if "queued-resources" in words and words[4] != "describe"]
    assert queued == ["create", "delete", "create", "delete"]
    trained = [innermost(words) for words in calls if any("igd_jax.train" in word for word in words)]
    assert len(trained) == 2
    assert trained[0] == trained[1]
    assert trained[0][-len(FLAGS) :] == FLAGS
    assert all({"--zone=z", "--quiet"} <= set(words) for words in calls if words[0] == "gcloud")
    assert "igd was preempted; a new one is asked for" in done.stdout


@pytest.mark.parametrize(
    ("does", "code", "says"),
    [
        ('case "$*" in *create*) echo "no permission" >&2; exit 3 ;; esac', 3, "no permission"),
        ("echo FAILED", 1, "the request for igd failed: see 'gcloud compute tpus queued-resources describe igd'"),
    ],
    ids=["refused", "failed"],
)
def test_a_queue_that_gives_nothing_is_not_asked_again(tmp_path, does, code, says):
    folder = tools(tmp_path / "bin", gcloud=does, sleep="kill $PPID")
    done = launch("tpu_pod", *FLAGS, **NEEDS["tpu_pod"], path=folder)
    assert (done.returncode, done.stderr.strip()) == (code, says)


def test_a_slice_is_left_if_training_itself_fails(tmp_path):
    folder = tools(tmp_path / "bin", gcloud='case "$*" in *describe*) echo ACTIVE ;; *train*) exit 7 ;; esac', sleep="")
    done = launch("tpu_pod", *FLAGS, **NEEDS["tpu_pod"], CODE="https://host/x.git", path=folder)
    assert done.returncode == 7
    assert "training ended with code 7; igd is left and costs" in done.stderr
    assert " delete " not in (folder / "calls").read_text()


def test_a_slice_of_which_nothing_is_known_is_named(tmp_path):
    looks = 'if test -e "$0.lost"; then echo "no network" >&2; exit 1; fi; echo ACTIVE'
    does = f'case "$*" in *describe*) {looks} ;; *train*) touch "$0.lost"; exit 255 ;; esac'
    folder = tools(tmp_path / "bin", gcloud=does, sleep="")
    done = launch("tpu_pod", *FLAGS, **NEEDS["tpu_pod"], CODE="https://host/x.git", path=folder)
    assert done.returncode == 1
    no_network, left = done.stderr.splitlines()
    assert no_network == "no network"
    assert left.startswith("nothing is known of igd, which may be left and cost")
    assert "preempted" not in done.stdout


@pytest.mark.parametrize("fails", ["scp", "setup.sh", "igd_jax.train"])
def test_a_machine_that_cannot_be_used_is_named(tmp_path, fails):
    folder = tools(tmp_path / "bin", gcloud=f'case "$*" in *{fails}*) exit 9 ;; esac')
    done = launch("tpu_vm", *FLAGS, **NEEDS["tpu_vm"], path=folder)
    assert done.returncode == 9
    assert done.stderr == "it ended with code 9; igd is left and costs: the same command goes on, or delete it\n"


@pytest.mark.parametrize("recipe", ["tpu_vm", "tpu_pod"])
def test_code_that_is_no_checkout_is_refused_before_anything_is_made(tmp_path, recipe):
    folder = tools(tmp_path / "bin", gcloud="")
    done = launch(recipe, *FLAGS, **NEEDS[recipe], CODE=str(tmp_path), path=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: CODE is {tmp_path}, which is not a git checkout; name one, or a git URL\n"
    assert not (folder / "calls").exists()


def test_code_of_a_checkout_is_packed_as_it_stands(tmp_path):
    """One TPU VM that is there already: files that git ignores stay here, changes go along."""
    code = tmp_path / "code"
    code.mkdir()
    subprocess.run(["git", "init", "-q", code], check=True)
    (code / ".gitignore").write_text("runs\n")
    (code / "runs").write_text("")
    (code / "new one.py").write_text("")
    keeps = 'case "$*" in *scp*) cp "$5" "$(dirname "$0")/got.tgz" ;; esac'
    folder = tools(tmp_path / "bin", gcloud=keeps)
    done = launch("tpu_vm", *FLAGS, **NEEDS["tpu_vm"], CODE=str(code), KEEP="1", path=folder)
    assert (done.returncode, done.stderr) == (0, "")
    names = subprocess.run(["tar", "-tzf", folder / "got.tgz"], capture_output=True, text=True, check=True).stdout
    assert sorted(names.splitlines()) == [".gitignore", "new one.py"]


@pytest.mark.parametrize(("recipe", "tool"), [("slurm", "sbatch"), ("sky", "sky")])
def test_the_tool_gets_what_the_dry_run_prints(tmp_path, recipe, tool):
    code = tmp_path / "code"
    (code / "launch").mkdir(parents=True)
    (code / "launch" / "setup.sh").write_text("")
    folder = tools(tmp_path / "bin", **{tool: ""})
    done = launch(recipe, *flags_of(recipe), **NEEDS[recipe], CODE=str(code), path=folder)
    assert (done.returncode, done.stderr) == (0, "")
    (said,) = [words for words in dry(recipe, CODE=str(code)) if words[0] == tool or words[:2] == ["exec", tool]]
    (call,) = map(shlex.split, (folder / "calls").read_text().splitlines())
    assert call == [word for word in said if word != "exec"]
