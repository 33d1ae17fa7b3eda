#!/usr/bin/env bash
# Trains on what SkyPilot finds in any cloud, as a managed job, which is started anew and resumes after a preemption.
#
#   ACCELERATORS=H100:8 NODES=2 BUCKET=gs://my-bucket launch/sky.sh [--dry-run] --config=igd \
#     --workdir=/bucket/runs/igd ...
#
# Settings: ACCELERATORS of one host, as `sky show-gpus` names them; BUCKET (gs://NAME), mounted as /bucket, all that
# is kept; NODES (1); NAME (igd-jax); SPOT= (empty) asks for what is never preempted; CODE and DATA, a URL, as in
# launch/recipe.sh.
set -euo pipefail
# shellcheck source=launch/recipe.sh
. "$(dirname "$0")/recipe.sh"
need ACCELERATORS BUCKET
need_workdir /bucket
case $BUCKET in
  gs://*) ;;
  *) refuse "BUCKET is $BUCKET; expected gs://NAME, as SkyPilot's mounts of other stores append to no file, and runs do" ;;
esac
need_tool sky sky
if [ -n "${DATA:-}" ]; then
  is_url "$DATA" || refuse "DATA is $DATA, which is on this machine; copy it to the bucket and give its URL"
  set -- "$@" --config.data.dir="$DATA"
fi
case $ACCELERATORS in tpu-*) extra=tpu ;; *) extra=cuda ;; esac
if is_url "$CODE"; then code=(--env=CLONE="$(clone)" --env=FOLDER=igd_jax); else code=(--workdir="$CODE"); fi
if [ -n "${SPOT-1}" ]; then code+=(--use-spot); fi
run exec sky jobs launch --yes --name="${NAME:-igd-jax}" --num-nodes="${NODES:-1}" --gpus="$ACCELERATORS" "${code[@]}" \
  --env=BUCKET="$BUCKET" --env=EXTRA="$extra" --env=TRAIN="$(quoted "$@")" "$launch/sky.yaml"
