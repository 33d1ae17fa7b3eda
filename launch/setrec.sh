#!/usr/bin/env bash
# SETRec on both backbones, beside the runs that launch/paper.sh left in OUT: their data, sources and seeds.
#
#   launch/setrec.sh OUT [--config.FIELD=VALUE ...]
#
# Flags go to SETRec alone: the backbone as for paper.sh, and its own steps and batch.
# Environment: RUNS, SEEDS, ROWS, TEST_ROWS, CHOOSE_ROWS, MORE as for paper.sh; SET_RATES, learning rates among which
# one is chosen for each seed on TEST_ROWS rows of validation (none: that of the config); SHARES, those of the semantic
# scores among which one is chosen on CHOOSE_ROWS rows of validation; T5, the folder or the named size of the T5
# (t5-pico), and TOKENIZER, its tokenizer's folder (empty: that of the T5's folder, or one trained on the titles);
# SLICES, those of "warm cold" (the default) that the data have. Tables compare with SASRec: of the rows of test, and
# then of users with all their targets: all of them among all items, and those of each slice among all items and among
# those of the slice. Started again, it goes on; after changing SET_RATES, SHARES or CHOOSE_ROWS, delete
# RUNS/setrec*/*/eval/{test,beta}* first.
set -euo pipefail
# shellcheck source=launch/runs.sh
. "$(dirname "$0")/runs.sh"
[[ ${1:-} ]] || refuse "too few arguments; usage: $0 OUT [--config.FIELD=VALUE ...]"
out=$1 runs=${RUNS:-$1}
[ -f "$out/data/meta.json" ] || refuse "OUT is $out, which holds no data/meta.json; run launch/paper.sh with it first"
shift
seeds=${SEEDS:-1,2,3} betas=${SHARES:-0,0.1,0.3,0.5} slices=${SLICES-warm cold}
t5=(--config.model.path= --config.model.config="${T5:-t5-pico}")
if test -d "${T5:-}"; then t5=(--config.model.path="$T5"); fi
t5+=(--config.tokenizer.path="${TOKENIZER:-}")
data=(--config.data.dir="$out/data" --config.data.max_examples="${ROWS:-0}" --config.eval.max_examples="${TEST_ROWS:-0}")
train() { # NAME CONFIG SEED FLAGS...: train and evaluate, then once more with the beta that validation prefers
  local run
  python -m igd_jax.sweep --output="$runs/$1" --config="$2" --grid=train.seed="$3" \
    ${SET_RATES:+--grid=train.learning_rate="$SET_RATES"} "${data[@]}" "${@:4}" \
    --config.method.args.collaborative="$(run_of "$out/sasrec" "$3")"
  run=$(run_of "$runs/$1" "$3")
  decode "$run" beta --choose=method.args.beta="$betas"
  for candidates in ${MORE:-}; do
    decode "$run" "test-$candidates" --config.decode.candidates="$candidates"
    decode "$run" "beta-$candidates" --choose=method.args.beta="$betas" --config.decode.candidates="$candidates"
  done
}
rows() { # SUFFIX
  python -m igd_jax.compare "$out"/sasrec/*/eval/test"$1" "$runs"/{sft,igd,setrec,setrec_t5}/*/eval/test"$1" \
    "$runs"/{setrec,setrec_t5}/*/eval/beta"$1" | tee "$runs/setrec$1.md"
}

for seed in ${seeds//,/ }; do
  train setrec setrec "$seed" "$@"
  train setrec_t5 setrec:t5 "$seed" "$@" "${t5[@]}"
  for method in "$out/sasrec" "$runs"/{sft,igd,setrec,setrec_t5}; do
    for candidates in catalogue $slices; do
      decode "$(run_of "$method" "$seed")" "users-$candidates" --config.eval.protocol=users \
        --config.decode.candidates="$candidates"
    done
  done
done
rows ""
for candidates in ${MORE:-}; do rows "-$candidates"; done
users() { # CANDIDATES FLAGS...
  echo -e "\ncandidates: $*"
  python -m igd_jax.compare "$out"/sasrec/*/eval/"users-$1" \
    "$runs"/{sft,igd,setrec,setrec_t5}/*/eval/"users-$1" "${@:2}"
}
{
  users catalogue
  for slice in $slices; do
    users catalogue --targets="$slice"
    users "$slice" --targets="$slice"
  done
} | tee "$runs/setrec_users.md"
