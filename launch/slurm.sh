#!/usr/bin/env bash
# Trains on the GPUs of one or more hosts of a Slurm cluster, whose file system the hosts share.
#
#   GPUS=8 NODES=2 launch/slurm.sh [--dry-run] --config=igd --workdir=runs/igd ...
#
# Settings: GPUS per host; NODES (1); CPUS per GPU (8); NAME (igd_jax); CODE and DATA as in launch/recipe.sh. Partition,
# account and time come from sbatch's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
# A job that is preempted, or stopped two minutes before its time is over, saves, queues again and resumes.
set -euo pipefail
# shellcheck source=launch/recipe.sh
. "$(dirname "$0")/recipe.sh"
need GPUS
need_workdir ''
need_tool sbatch slurm
cpus=${CPUS:-8}
if [ -n "${DATA:-}" ]; then set -- "$@" --config.data.dir="$(absolute "$DATA")"; fi
fetch_code
run bash "$code/launch/setup.sh" cuda
# One process per GPU, each of which sees all GPUs of its host: JAX takes the one of its number on the host.
job="srun --cpus-per-task=$cpus --kill-on-bad-exit=1 $(quoted "$code/.venv/bin/python") -P -m igd_jax.train $(quoted "$@"); code=\$?; "
job+="if test \$code = 143; then scontrol requeue \$SLURM_JOB_ID; fi; exit \$code"
run sbatch --job-name="${NAME:-igd_jax}" --nodes="${NODES:-1}" --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" \
  --cpus-per-task="$cpus" --requeue --signal=TERM@120 --open-mode=append --output=%x-%j.log --wrap="$job"
