#!/usr/bin/env bash
# The tables of LOG.md at sizes for two CPU cores: launch/paper.sh on Amazon Books and on ML-100K, side by side, each with
# a small trained backbone and then with one from random weights. Times and results are in LOG.md.
#
#   launch/paper_small.sh DATA MODEL OUT
#
# DATA holds amazon_books (the published csv layout) and ml-100k, MODEL is a Hugging Face folder, OUT gets a folder and a
# log a table: OUT/{books,movies}-{trained,scratch}. Started again, it goes on.
set -euo pipefail
data=$1 model=$2 out=$3
export SEEDS=1,2,3 TEST_ROWS=500 CHOOSE_ROWS=100 LAMS=0.3,0.7 ALPHAS=0,0.2
mkdir -p "$out"
paper() { # CATEGORY BACKBONE FLAGS...: one table, of the source and input that the caller set
  launch/paper.sh "$source" "$data/$input" "$out/$1-$2" --config.data.category="$1" --config.train.patience=0 \
    --config.train.eval_examples=512 --config.decode.batch_size=32 "${@:3}" >>"$out/$1-$2.log" 2>&1
  echo "$1, $2 backbone: $out/$1-$2/table.md after $SECONDS s"
}
tables() { # CATEGORY SOURCE INPUT EPOCHS: one data set, SASRec for that many epochs, both backbones
  local source=$2 input=$3
  export SASREC="--config.train.num_epochs=$4"
  paper "$1" trained --config.model.path="$model" --config.data.prompt=igd --config.train.num_steps=16 \
    --config.train.global_batch_size=64 --config.train.micro_batch_size=64 --config.train.learning_rate=3e-4 \
    --config.train.warmup_steps=2
  paper "$1" scratch --config.model.config=pico --config.train.num_steps=150 --config.train.global_batch_size=32 \
    --config.train.micro_batch_size=32 --config.train.learning_rate=3e-3
}
tables books d3 amazon_books 15 & pids=$!
tables movies movielens ml-100k 12 & pids+=" $!"
failed=0
for pid in $pids; do wait "$pid" || failed=1; done
exit $failed
