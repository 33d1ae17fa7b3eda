#!/usr/bin/env bash
# Trains in a container on this machine, of an image that is built first: for the CPU, or for NVIDIA GPUs.
#
#   ACCELERATOR=cuda launch/docker.sh [--dry-run] --config=igd --workdir=runs/igd ...
#
# Settings: ACCELERATOR, nothing for the CPU, or cuda; RUNS, the folder that the container sees as runs (./runs), all
# that is kept of it; RUN, further flags of `docker run`, whose --volume=FOLDER:PLACE is kept, too; CODE and DATA as in
# launch/recipe.sh.
set -euo pipefail
# shellcheck source=launch/recipe.sh
. "$(dirname "$0")/recipe.sh"
kept=(runs /igd_jax/runs)
for word in ${RUN:-}; do
  case $word in *:/*) word=${word#*:} && kept+=("${word%%:*}") ;; esac
done
need_workdir "${kept[@]}"
need_kind cuda
need_tool docker docker
extra=${ACCELERATOR:-} image=igd_jax:${ACCELERATOR:-cpu} runs=$(absolute "${RUNS:-runs}") file=launch/Dockerfile
is_url "$CODE" || file=$CODE/$file
places=(--volume="$runs:/igd_jax/runs")
if [ -n "${DATA:-}" ] && is_url "$DATA"; then
  set -- "$@" --config.data.dir="$DATA"
elif [ -n "${DATA:-}" ]; then
  places+=(--volume="$(absolute "$DATA"):/data:ro")
  set -- "$@" --config.data.dir=/data
fi
run docker build --build-arg=EXTRA="$extra" --tag="$image" --file="$file" "$CODE"
run mkdir -p "$runs" # else the daemon makes it, for root alone
if [ "$extra" = cuda ]; then places+=(--gpus=all); fi
# shellcheck disable=SC2086
run exec docker run --rm --init --user="$(id -u):$(id -g)" --env=HOME=/tmp "${places[@]}" ${RUN:-} "$image" \
  python -m igd_jax.train "$@"
