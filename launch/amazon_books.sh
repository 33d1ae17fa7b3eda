#!/usr/bin/env bash
# The main job on real input: IGD against plain SFT (beta 1), each decoded with and without gain, in one table.
#
#   launch/amazon_books.sh DATA MODEL OUT [--config.FIELD=VALUE ...]
#
# DATA is a folder in the published csv layout (D3, IGD), MODEL a Hugging Face folder, OUT where runs go. Further flags
# go to training and evaluation alike. Everything resumes: finished steps are skipped, evaluations are repeated.
set -euo pipefail
raw=$1 model=$2 out=$3
shift 3

if [ ! -f "$out/data/meta.json" ]; then
  python -m igd_jax.prepare --source=d3 --input="$raw" --output="$out/data"
fi
for beta in 0.1 1.0; do
  run="$out/beta$beta"
  common=(--config=configs/igd.py:books --config.data.dir="$out/data" --config.model.path="$model"
    --config.method.args.beta="$beta" --workdir="$run" "$@")
  python -m igd_jax.train "${common[@]}"
  for alpha in 0.0 0.2; do
    python -m igd_jax.evaluate --workdir="$run" --name="alpha$alpha" --config.decode.alpha="$alpha"
  done
done
python -m igd_jax.compare "$out/beta1.0" "$out/beta0.1"
