#!/usr/bin/env bash
# Trains on this machine.
#
#   launch/local.sh [--dry-run] --config=igd --workdir=runs/igd ...
#
# Settings: ACCELERATOR, nothing for the CPU, or cuda, or tpu; CODE and DATA as in launch/recipe.sh.
set -euo pipefail
# shellcheck source=launch/recipe.sh
. "$(dirname "$0")/recipe.sh"
need_workdir ''
need_kind cuda tpu
if [ -n "${DATA:-}" ]; then set -- "$@" --config.data.dir="$(absolute "$DATA")"; fi
fetch_code
run bash "$code/launch/setup.sh" ${ACCELERATOR:+"$ACCELERATOR"}
run exec "$code/.venv/bin/python" -P -m igd_jax.train "$@" # -P: what lies in this folder is not the package
