#!/usr/bin/env bash
# All methods on one footing: the same data, prompt, backbone, candidates, rows and seeds, and one table at the end.
#
#   launch/paper.sh SOURCE INPUT OUT [--config.FIELD=VALUE ...]
#
# SOURCE and INPUT as igd_jax.prepare takes them (d3 FOLDER, movielens FOLDER, csv FILE, ...), OUT where runs go. Further
# flags go to every title-writing method alike: the backbone (--config.model.path or --config.model.config), steps, batch.
# Environment: PREPARE, flags of prepare; RUNS, the folder of the title-writing runs and the table (OUT), another one for
# each backbone; SEEDS (1,2,3); ROWS and TEST_ROWS, rows evenly spread over train and test, for all methods (0: all).
# Chosen on validation: the learning rate among RATES, for SFT with the first seed, and the others take it; beta among
# BETAS, likewise for IGD (both on TEST_ROWS rows); D3's share among LAMS and IGD's alpha among ALPHAS, for each run, on
# CHOOSE_ROWS rows. MORE names further candidate sets (train, warm, ...) that everything is decoded with once more. SASREC
# holds flags of the collaborative source, BIGREC of BIGRec's decoding. Tables compare everything with SFT. Started
# again, it goes on: finished runs are skipped; after changing RATES, BETAS, LAMS, ALPHAS or CHOOSE_ROWS, delete
# RUNS/*/*/eval/{test,alpha,d3}* first.
set -euo pipefail
# shellcheck source=launch/runs.sh
. "$(dirname "$0")/runs.sh"
[[ ${1:-} && ${2:-} && ${3:-} ]] ||
  refuse "too few arguments; usage: $0 SOURCE INPUT OUT [--config.FIELD=VALUE ...]"
source=$1 input=$2 out=$3
shift 3
runs=${RUNS:-$out}
seeds=${SEEDS:-1,2,3} train_rows=${ROWS:-0} test_rows=${TEST_ROWS:-0}
rates=${RATES:-1e-4} betas=${BETAS:-0.1} lams=${LAMS:-0.2,0.5,0.8} alphas=${ALPHAS:-0,0.1,0.2,0.4}
sweep() { # FOLDER CONFIG FLAGS...: train each seed, evaluate each; what the grid leaves open is chosen by the first seed
  python -m igd_jax.sweep --output="$1" --config="$2" --grid=train.seed="$seeds" --choose_seeds=1 \
    --config.eval.max_examples="$test_rows" "${@:3}"
}
decode_all() { # SUFFIX FLAGS...: the decodings of every seed, with one candidate set
  for seed in ${seeds//,/ }; do
    local sft igd sasrec
    sft=$(run_of "$runs/sft" "$seed") igd=$(run_of "$runs/igd" "$seed") sasrec=$(run_of "$out/sasrec" "$seed")
    for folder in "$out/sasrec" "$runs"/{sft,igd,pos,cft,msl}; do
      decode "$(run_of "$folder" "$seed")" "test$1" "${@:2}"
    done
    for run in "$sft" "$igd"; do
      decode "$run" "alpha$1" --choose=decode.alpha="$alphas" "${@:2}"
      decode "$run" "d3$1" --decode_as=d3 --choose=method.args.lam="$lams" \
        --config.decode.collaborative="$sasrec" "${@:2}"
    done
    decode "$sft" "penalty$1" --config.decode.length_penalty=1 "${@:2}"
    # shellcheck disable=SC2086
    decode "$sft" "bigrec$1" --decode_as=bigrec "${@:2}" ${BIGREC:-}
  done
  python -m igd_jax.compare "$runs"/{sft,igd,pos,cft,msl}/*/eval/test"$1" "$runs"/{sft,igd}/*/eval/{alpha,d3}"$1" \
    "$runs"/sft/*/eval/{penalty,bigrec}"$1" "$out"/sasrec/*/eval/test"$1" | tee "$runs/table$1.md"
}

# shellcheck disable=SC2086
test -f "$out/data/meta.json" ||
  python -m igd_jax.prepare --source="$source" --input="$input" --output="$out/data" ${PREPARE:-}
data=(--config.data.dir="$out/data" --config.data.max_examples="$train_rows")
# shellcheck disable=SC2086
sweep "$out/sasrec" sasrec "${data[@]}" ${SASREC:-}
plain=("${data[@]}" --config.decode.alpha=0 --config.decode.length_penalty=0 "$@")
sweep "$runs/sft" sft --grid=train.learning_rate="$rates" "${plain[@]}"
plain+=(--config.train.learning_rate="$(rate_of "$runs/sft" "${seeds%%,*}")")
sweep "$runs/igd" igd --grid=method.args.beta="$betas" "${plain[@]}"
for method in pos cft msl; do
  sweep "$runs/$method" $method "${plain[@]}"
done
decode_all ""
for candidates in ${MORE:-}; do
  decode_all "-$candidates" --config.decode.candidates="$candidates"
done
