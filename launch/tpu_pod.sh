#!/usr/bin/env bash
# Trains on all hosts of a TPU slice, as a queued resource: waits for it, makes it anew after a preemption, and goes on.
#
#   NAME=igd ZONE=us-west4-a ACCELERATOR=v5litepod-16 BUCKET=my-bucket DATA=gs://my-bucket/data launch/tpu_pod.sh \
#     [--dry-run] --config=igd --workdir=bucket/runs/igd ...
#
# Settings: launch/tpu.sh and launch/recipe.sh name them; SPOT= (empty) asks for what is never preempted; POLL, seconds
# between two looks at the queue (60). Started again, it goes on wherever it was.
set -euo pipefail
# shellcheck source=launch/recipe.sh
. "$(dirname "$0")/recipe.sh"
# shellcheck source=launch/tpu.sh
. "$launch/tpu.sh"
need BUCKET
need_workdir bucket
need_there bucket "$@"
spot=--spot
if [ -z "${SPOT-1}" ]; then spot=; fi

queue() { tpu queued-resources "$@"; }
state() { # empty if there is none; ends all where that cannot be known
  if queue describe "$NAME" --format='value(state.state)' 2>"$packed/said"; then return; fi
  case $(<"$packed/said") in *NOT_FOUND* | *'not found'*) return ;; esac
  cat "$packed/said" >&2
  echo "nothing is known of $NAME, which may be left and cost: the same command goes on, or delete it" >&2
  exit 1
}
create() {
  # shellcheck disable=SC2086
  queue create "$NAME" --node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" \
    $spot ${CREATE:-}
}
delete() { queue delete "$NAME" --force; }
wait_for_slice() {
  local now
  while now=$(state) || exit; [ "$now" != ACTIVE ]; do
    case $now in
      '') create || exit ;;
      SUSPENDED) delete || exit ;;
      FAILED) echo "the request for $NAME failed: see 'gcloud compute tpus queued-resources describe $NAME'" >&2 && exit 1 ;;
      *) echo "$NAME: $now" ;;
    esac
    sleep "${POLL:-60}"
  done
}
if [ -n "$dry_run" ]; then
  state
  create
  set_up
  train "$@"
  delete
  exit
fi
while wait_for_slice; do
  code=0
  { set_up && train "$@"; } || code=$?
  [ "$code" != 0 ] || break
  sleep "${POLL:-60}" # a preemption shows with delay
  now=$(state) || exit
  if [ "$now" = ACTIVE ]; then
    echo "training ended with code $code; $NAME is left and costs: the same command goes on, or delete it" >&2
    exit "$code"
  fi
  echo "$NAME was preempted; a new one is asked for"
done
if [ -z "${KEEP:-}" ]; then delete; fi
