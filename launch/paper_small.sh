#!/usr/bin/env bash
# The tables of LOG.md at sizes for two CPU cores: launch/paper.sh on Amazon Books and on ML-100K, side by side, each with
# a small trained backbone and then with one from random weights. Times and results are in LOG.md.
#
#   launch/paper_small.sh DATA MODEL OUT
#
# DATA holds amazon_books (the published csv layout) and ml-100k, MODEL is a Hugging Face folder, OUT gets one folder
# per data set, OUT/{books,movies}, with a folder, a log and a table per backbone. Started again, it goes on.
set -euo pipefail
data=$1 model=$2 out=$3
export SEEDS=1,2,3 TEST_ROWS=300 CHOOSE_ROWS=64 LAMS=0.3,0.7 ALPHAS=0,0.2
tables() { # CATEGORY SOURCE INPUT EPOCHS: one data set, SASRec for that many epochs, both backbones
  local category=$1 source=$2 input=$3 folder=$out/$1
  export SASREC="--config.train.num_epochs=$4"
  mkdir -p "$folder"
  paper trained --config.model.path="$model" --config.data.prompt=igd --config.train.num_steps=12 \
    --config.train.global_batch_size=64 --config.train.micro_batch_size=64 --config.train.learning_rate=3e-4 \
    --config.train.warmup_steps=2
  paper scratch --config.model.config=pico --config.train.num_steps=100 --config.train.global_batch_size=32 \
    --config.train.micro_batch_size=32 --config.train.learning_rate=3e-3
}
paper() { # BACKBONE FLAGS...: one table of the data set
  RUNS=$folder/$1 launch/paper.sh "$source" "$data/$input" "$folder" --config.data.category="$category" \
    --config.train.patience=0 --config.train.eval_examples=256 --config.decode.batch_size=32 "${@:2}" \
    >>"$folder/$1.log" 2>&1
  echo "$category, $1 backbone, after $SECONDS s: $folder/$1/table.md"
}
tables books d3 amazon_books 15 & pids=$!
tables movies movielens ml-100k 12 & pids+=" $!"
failed=0
for pid in $pids; do wait "$pid" || failed=1; done
exit $failed
