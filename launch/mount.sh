#!/usr/bin/env bash
# Mounts a Google Cloud Storage bucket on a TPU VM, for workdirs that outlive it; installs gcsfuse if it is missing.
#
#   launch/mount.sh BUCKET FOLDER
#
# Nothing is cached of names and sizes, as all hosts of a slice write and read. Folders are renamed whole and at once
# only in a bucket with a hierarchical namespace (docs/launch.md, Where runs are kept).
set -euo pipefail
if [ -z "${1:-}" ] || [ -z "${2:-}" ]; then
  echo "error: too few arguments; usage: $0 BUCKET FOLDER" >&2
  exit 2
fi
bucket=$1 folder=$2
if ! command -v gcsfuse >/dev/null; then
  keys=/usr/share/keyrings/cloud.google.asc
  curl -LsSf https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$keys" >/dev/null
  echo "deb [signed-by=$keys] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -o DPkg::Lock::Timeout=600 update
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y gcsfuse
fi
mkdir -p "$folder"
mountpoint -q "$folder" ||
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 \
    --rename-dir-limit=1000000 "${bucket#gs://}" "$folder"
