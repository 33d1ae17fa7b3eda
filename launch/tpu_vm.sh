#!/usr/bin/env bash
# Trains on one TPU VM, which is made if there is none of that name, and deleted when training has ended well.
#
#   NAME=igd ZONE=us-west4-a ACCELERATOR=v5litepod-8 launch/tpu_vm.sh [--dry-run] --config=configs/igd.py --workdir=...
#
# Settings: launch/tpu.sh and launch/recipe.sh name them. Started again, it goes on.
set -euo pipefail
# shellcheck source=launch/recipe.sh
. "$(dirname "$0")/recipe.sh"
# shellcheck source=launch/tpu.sh
. "$launch/tpu.sh"
if ! tpu tpu-vm describe "$NAME" --format='value(state)' || [ -n "$dry_run" ]; then
  # shellcheck disable=SC2086
  tpu tpu-vm create "$NAME" --accelerator-type="$ACCELERATOR" --version="$RUNTIME" ${CREATE:-}
fi
code=0
{ set_up && train "$@"; } || code=$?
if [ "$code" != 0 ]; then
  echo "it ended with code $code; $NAME is left and costs: the same command goes on, or delete it" >&2
elif [ -z "${KEEP:-}" ]; then
  tpu tpu-vm delete "$NAME"
fi
exit "$code"
