# shellcheck shell=bash
# What the scripts beside this one share, which source it. With --help they print their first lines.

for word in "$@"; do
  case $word in --help | -h) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit ;; esac
done
refuse() { # WORDS...: end as programs do after bad input
  echo "error: $*" >&2
  exit 2
}
run_of() { # FOLDER SEED: the run of a sweep that was evaluated on test
  for run in "$1/seed=$2" "$1/seed=$2,"*; do if test -d "$run/eval/test"; then echo "$run"; fi; done
}
rate_of() { # FOLDER SEED: its learning rate, by the name of that run
  basename "$(run_of "$1" "$2")" | sed 's/.*learning_rate=//'
}
decode() { # RUN NAME FLAGS...: one more evaluation of a trained run; CHOOSE_ROWS rows of valid are for choices
  test -f "$1/eval/$2/metrics.json" || python -m igd_jax.evaluate --workdir="$1" --name="$2" --choose_examples="${CHOOSE_ROWS:-200}" \
    "${@:3}"
}
