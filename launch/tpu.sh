# shellcheck shell=bash
# What the recipes of TPUs share, which source this file after launch/recipe.sh.
#
# NAME, ZONE and ACCELERATOR (v5litepod-8, v6e-16, ...) of the TPU; PROJECT (gcloud's own); RUNTIME, the image (that of
# the accelerator); CREATE, further flags of its creation; BUCKET, a bucket to mount as the folder `bucket`, where runs
# outlive the machine: --workdir=bucket/RUN, and no other; KEEP=1 does not delete the TPU in the end.
# TPU VMs are in Google's own user's home: code in igd_jax, a local DATA in igd_jax/data.

need NAME ZONE ACCELERATOR
need_tool gcloud tpu_pod
if [ -z "${RUNTIME:-}" ]; then
  case $ACCELERATOR in
    v6e-*) RUNTIME=v2-alpha-tpuv6e ;;
    v5p-*) RUNTIME=v2-alpha-tpuv5 ;;
    v5litepod-*) RUNTIME=v2-alpha-tpuv5-lite ;;
    *) RUNTIME=tpu-ubuntu2204-base ;;
  esac
fi
if ! is_url "$CODE" && ! git -C "$CODE" rev-parse 2>/dev/null; then
  refuse "CODE is $CODE, which is not a git checkout; name one, or a git URL"
fi
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT

tpu() { # WORDS...: a command of `gcloud compute tpus`
  run gcloud compute tpus "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} --quiet
}
everywhere() { # LINE: run a line of shell on all hosts, in a terminal, so that it ends with the connection
  tpu tpu-vm ssh "$NAME" --worker=all --ssh-flag=-tt --command="$1"
}
pack() { # line of shell: the working tree of CODE, without what git ignores
  echo "set -o pipefail; git -C $(quoted "$CODE") ls-files -z --cached --others --exclude-standard |" \
    "tar -C $(quoted "$CODE") --null --files-from=- --ignore-failed-read -czf $packed/code.tgz"
}
carry_code() {
  if is_url "$CODE"; then
    everywhere "$(clone)"
  else
    run bash -c "$(pack)" && tpu tpu-vm scp "$packed/code.tgz" "$NAME:code.tgz" --worker=all &&
      everywhere "rm -rf igd_jax/igd_jax igd_jax/configs && mkdir -p igd_jax && tar -xzf code.tgz -C igd_jax"
  fi
}
carry_data() {
  if [ -n "${DATA:-}" ] && ! is_url "$DATA"; then
    run tar -czf "$packed/data.tgz" -C "$DATA" . && tpu tpu-vm scp "$packed/data.tgz" "$NAME:data.tgz" --worker=all &&
      everywhere "mkdir -p igd_jax/data && tar -xzf data.tgz -C igd_jax/data"
  fi
}
set_up() {
  carry_code && carry_data && everywhere "bash igd_jax/launch/setup.sh tpu" &&
    if [ -n "${BUCKET:-}" ]; then everywhere "bash igd_jax/launch/mount.sh $(quoted "$BUCKET") igd_jax/bucket"; fi
}
train() { # ARGUMENTS...: on all hosts, which find one another
  if [ -n "${DATA:-}" ]; then
    if is_url "$DATA"; then set -- "$@" --config.data.dir="$DATA"; else set -- "$@" --config.data.dir=data; fi
  fi
  # Only the first process keeps what it has compiled, so the others, and a TPU that is made anew, read it in the bucket.
  everywhere "cd igd_jax && exec env ${BUCKET:+JAX_COMPILATION_CACHE_DIR=\$PWD/bucket/.compiled }\
.venv/bin/python -m igd_jax.train $(quoted "$@")"
}
