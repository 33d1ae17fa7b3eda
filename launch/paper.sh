#!/usr/bin/env bash
# All methods on one footing: the same data, prompt, backbone, candidates, rows and seeds, and one table at the end.
#
#   launch/paper.sh SOURCE INPUT OUT [--config.FIELD=VALUE ...]
#
# SOURCE and INPUT as igd_jax.prepare takes them (d3 FOLDER, movielens FOLDER, csv FILE, ...), OUT where runs go. Further
# flags go to every title-writing method alike: the backbone (--config.model.path or --config.model.config), steps, batch.
# Environment: RUNS, the folder of the title-writing runs and the table (OUT), another one for each backbone; SEEDS
# (1,2,3); ROWS and TEST_ROWS, rows evenly spread over train and test, for all methods (0: all); LAMS and ALPHAS, the
# values among which D3's share and IGD's alpha are chosen on CHOOSE_ROWS rows of validation, as the table's caption
# says; SASREC, flags of the collaborative source; BIGREC, of BIGRec's decoding. Started again, it goes on: finished runs
# are skipped; after changing LAMS, ALPHAS or CHOOSE_ROWS, delete RUNS/*/*/eval/{alpha,d3} first.
set -euo pipefail
source=$1 input=$2 out=$3
shift 3
runs=${RUNS:-$out}
seeds=${SEEDS:-1,2,3} train_rows=${ROWS:-0} test_rows=${TEST_ROWS:-0} rows=${CHOOSE_ROWS:-200}
lams=${LAMS:-0.2,0.5,0.8} alphas=${ALPHAS:-0,0.1,0.2,0.4}
sweep() { # FOLDER CONFIG FLAGS...: train each seed, evaluate each
  python -m igd_jax.sweep --output="$1" --config="$2" --grid=train.seed="$seeds" "${@:3}"
}
decode() { # RUN NAME FLAGS...: one more evaluation of a trained run
  test -f "$1/eval/$2/metrics.json" || python -m igd_jax.evaluate --workdir="$1" --name="$2" --choose_examples="$rows" "${@:3}"
}

test -f "$out/data/meta.json" || python -m igd_jax.prepare --source="$source" --input="$input" --output="$out/data"
data=(--config.data.dir="$out/data" --config.data.max_examples="$train_rows" --config.eval.max_examples="$test_rows")
# shellcheck disable=SC2086
sweep "$out/sasrec" configs/sasrec.py "${data[@]}" ${SASREC:-}
for method in sft igd pos cft msl; do
  sweep "$runs/$method" configs/$method.py "${data[@]}" --config.decode.alpha=0 --config.decode.length_penalty=0 "$@"
done
for seed in ${seeds//,/ }; do
  decode "$runs/sft/seed=$seed" penalty --config.decode.length_penalty=1
  # shellcheck disable=SC2086
  decode "$runs/sft/seed=$seed" bigrec --decode_as=configs/bigrec.py ${BIGREC:-}
  d3=(--decode_as=configs/d3.py --choose=method.args.lam="$lams")
  d3+=(--config.decode.collaborative="$out/sasrec/seed=$seed")
  decode "$runs/sft/seed=$seed" d3 "${d3[@]}"
  decode "$runs/igd/seed=$seed" d3 "${d3[@]}" --config.decode.alpha=0.2
  for method in sft igd cft; do
    decode "$runs/$method/seed=$seed" alpha --choose=decode.alpha="$alphas"
  done
done
python -m igd_jax.compare "$out"/sasrec/seed=*/eval/test "$runs"/{sft,igd,pos,cft,msl}/seed=*/eval/test \
  "$runs"/{sft,igd,cft}/seed=*/eval/alpha "$runs"/sft/seed=*/eval/{penalty,bigrec,d3} "$runs"/igd/seed=*/eval/d3 |
  tee "$runs/table.md"
