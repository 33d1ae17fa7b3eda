#!/usr/bin/env bash
# SETRec on both backbones, beside the runs that launch/paper.sh left in OUT: their data, sources, seeds and rows.
#
#   launch/setrec.sh OUT [--config.FIELD=VALUE ...]
#
# Flags go to SETRec alone: the backbone as for paper.sh, and its own steps, batch and rate.
# Environment: SEEDS, TEST_ROWS, CHOOSE_ROWS as for paper.sh; BETAS, the shares of the semantic scores among which one is
# chosen on CHOOSE_ROWS rows of validation; T5, the folder or the named size of the T5 (t5-pico), and TOKENIZER, the
# tokenizer's folder where that is not the backbone's. Prints two tables: all rows of test, with the title-writing
# runs; and users with all their targets, over all items, warm ones alone and cold ones alone. Started again, it goes on.
set -euo pipefail
out=$1
shift
seeds=${SEEDS:-1,2,3} test_rows=${TEST_ROWS:-0} rows=${CHOOSE_ROWS:-200} betas=${BETAS:-0,0.1,0.3,0.5} t5=${T5:-t5-pico}
decode() { # RUN NAME FLAGS...: one more evaluation of a trained run
  test -f "$1/eval/$2/metrics.json" || python -m igd_jax.evaluate --workdir="$1" --name="$2" "${@:3}"
}

for seed in ${seeds//,/ }; do
  for kind in setrec setrec_t5; do
    flags=(--config.data.dir="$out/data" --config.eval.max_examples="$test_rows" "$@")
    flags+=(--config.method.args.collaborative="$out/sasrec/seed=$seed/eval/test")
    config=configs/setrec.py
    if [ $kind = setrec_t5 ]; then
      config=configs/setrec.py:t5
      flags+=(--config.method.args.t5="$t5" --config.tokenizer.path="${TOKENIZER:-}")
    fi
    python -m igd_jax.sweep --output="$out/$kind" --config=$config --grid=train.seed="$seed" "${flags[@]}"
    decode "$out/$kind/seed=$seed" beta --choose=method.args.beta="$betas" --choose_examples="$rows"
  done
  for method in sasrec sft igd setrec setrec_t5; do
    for candidates in catalogue train cold; do
      decode "$out/$method/seed=$seed" "users-$candidates" --config.eval.protocol=users \
        --config.decode.candidates=$candidates
    done
  done
done
python -m igd_jax.compare "$out"/{sasrec,sft,igd,setrec,setrec_t5}/seed=*/eval/test \
  "$out"/{setrec,setrec_t5}/seed=*/eval/beta | tee "$out/setrec.md"
for candidates in catalogue train cold; do
  echo "users, candidates: $candidates"
  python -m igd_jax.compare "$out"/{sasrec,sft,igd,setrec,setrec_t5}/seed=*/eval/users-$candidates
done | tee "$out/setrec_users.md"
