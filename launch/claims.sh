#!/usr/bin/env bash
# The claims of the paper, tried on four public sets with a model small enough for two CPU cores: launch/paper.sh and
# launch/setrec.sh on each, until the loss on validation stops falling, everything chosen on validation, all rows of test,
# two candidate sets.
#
#   launch/claims.sh DATA OUT [--config.FIELD=VALUE ...]
#
# DATA holds ml-100k, movielens-1m, amazon_books (the published csv layout) and amazon2014_digital_music; OUT gets a
# folder per set, OUT/SET, with its runs, table.md (all items) and table-train.md (titles that are train targets), which
# compare everything with SFT, and SETRec's tables, which compare it with SASRec. Flags go to all methods but SASRec.
# Environment: SETS, those to do (all four); what launch/paper.sh takes, but RUNS. Started again, it goes on. Times and
# results are in LOG.md.
set -euo pipefail
launch=$(dirname "$0")
# shellcheck source=launch/runs.sh
. "$launch/runs.sh"
[[ ${1:-} && ${2:-} ]] || refuse "too few arguments; usage: $0 DATA OUT [--config.FIELD=VALUE ...]"
data=$1 out=$2
shift 2
all="amazon_books ml-100k movielens-1m amazon2014_digital_music"
for set in ${SETS:=$all}; do
  [[ " $all " = *" $set "* ]] || refuse "SETS is $SETS; expected some of: $all"
  [ -d "$data/$set" ] || refuse "DATA is $data, which holds no folder $set; expected those of SETS: $SETS"
done
unset RUNS
export RATES=${RATES:-3e-3,6e-3} BETAS=${BETAS:-0.1,0.3} LAMS=${LAMS:-0.1,0.3,0.5,0.7,0.9}
export SASREC=${SASREC:---grid=train.learning_rate=1e-3,3e-3} SET_RATES=${SET_RATES:-1e-3,3e-3}
export CHOOSE_ROWS=${CHOOSE_ROWS:-1000} MORE=${MORE:-train} BIGREC=${BIGREC:---config.method.args.embed_by=tuned}
# SETRec, too: its published batches of 512 rows would take hours. Patience is 3,000 steps: with 600, the noise of 1,024
# rows ended runs that still learned, SFT's more than IGD's (LOG.md).
converge=(--config.model.config=pico --config.train.global_batch_size=64 --config.train.micro_batch_size=32
  --config.train.num_epochs=30 --config.train.schedule=constant --config.train.patience=15
  --config.train.eval_every_steps=200 --config.train.eval_examples=1024 --config.train.log_every_steps=100)
claims() { # SET SOURCE CATEGORY FLAGS...
  if [[ " $SETS " != *" $1 "* ]]; then return; fi
  mkdir -p "$out/$1"
  "$launch/paper.sh" "$2" "$data/$1" "$out/$1" --config.data.category="$3" "${converge[@]}" "${@:4}" | tee -a "$out/$1/log"
  "$launch/setrec.sh" "$out/$1" "${converge[@]}" "${@:4}" | tee -a "$out/$1/log"
}
claims amazon_books d3 books "$@" # rows as they are, with their own histories
export PREPARE=${PREPARE:---max_history=5}
claims ml-100k movielens movies "$@"
claims movielens-1m movielens movies "$@"
# An epoch is 28 steps here: as many of them as it takes, and batches as small for SASRec, with its published patience.
export SLICES="" # of its items, none is cold
SASREC+=" --config.train.global_batch_size=64 --config.train.micro_batch_size=64 --config.train.patience=20"
claims amazon2014_digital_music amazon2014 albums --config.train.num_epochs=1000 --config.train.eval_every_steps=30 "$@"
