#!/usr/bin/env bash
# Trains on one TPU VM, which is made if there is none of that name, and deleted when training has ended well.
#
#   NAME=igd ZONE=us-west4-a ACCELERATOR=v5litepod-8 BUCKET=my-bucket DATA=gs://my-bucket/data launch/tpu_vm.sh \
#     [--dry-run] --config=igd --workdir=bucket/runs/igd ...
#
# Settings: launch/tpu.sh and launch/recipe.sh name them. With KEEP=1, which deletes nothing, BUCKET may be left out and
# --workdir be any. Started again, it goes on.
set -euo pipefail
# shellcheck source=launch/recipe.sh
. "$(dirname "$0")/recipe.sh"
# shellcheck source=launch/tpu.sh
. "$launch/tpu.sh"
if [ -n "${KEEP:-}" ]; then
  need_workdir ''
else
  [ -n "${BUCKET:-}" ] ||
    refuse "$NAME is deleted in the end, and its disk too; set BUCKET, where runs are kept, or KEEP=1"
  need_workdir bucket
  need_there bucket "$@"
fi
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
