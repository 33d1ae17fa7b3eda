# shellcheck shell=bash
# What the recipes share, which source this file. A recipe takes settings from the environment, and hands its arguments
# on to `python -m igd_jax.train`. Among them, --dry-run prints every command and runs none, and --help prints the
# recipe's first lines. Bash 3.2 is enough.
#
# CODE: what runs, a checkout (default: the one that holds the recipe, changes included) or a git URL, URL#REF.
# DATA: the prepared folder, local or by URL (gs://, s3://); becomes --config.data.dir. Without it, the arguments say it.

launch=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/runs.sh
. "$launch/runs.sh"
CODE=${CODE:-$(dirname "$launch")}
dry_run='' workdir='' before=''
for word in "$@"; do # all but --dry-run come back, at the end
  shift
  case $word in
    --dry-run) dry_run=1 && continue ;;
    --workdir=* | -workdir=*) workdir=${word#*=} ;;
    *) case $before in --workdir | -workdir) workdir=$word ;; esac ;;
  esac
  set -- "$@" "$word"
  before=$word
done

need() { # NAMES...: refuse if a setting is missing
  for name in "$@"; do
    [ -n "${!name:-}" ] || refuse "the setting $name is missing; '$0 --help' says what it is, or where that is said"
  done
}
need_workdir() { # FOLDERS...: refuse if there is no --workdir, or in none of these, which are kept; empty: all are
  local folder example="for example: $0 --config=igd --workdir=${1:-runs}/igd"
  [ -n "$workdir" ] || refuse "no --workdir among the arguments of igd_jax.train; $example"
  [ -n "$1" ] || return 0
  for folder in "$@"; do
    case $workdir/ in
      */../*) ;;
      "$folder"/* | "./$folder"/*) return ;;
    esac
  done
  refuse "--workdir is $workdir, which is deleted in the end; only $1/ is kept; $example"
}
need_there() { # FOLDER WORDS...: refuse paths of data and models that a new machine lacks: all but URLs and this folder's
  local folder=$1 word
  shift
  [ -z "${CREATE:-}" ] || return 0 # which may name a disk that has them
  for word in "$@"; do
    case $word in
      --config.data.dir=*://* | --config.model.path=*://* | --config.tokenizer.path=*://*) ;;
      --config.data.dir=?* | --config.model.path=?* | --config.tokenizer.path=?*)
        case ${word#*=} in
          "$folder"/* | "./$folder"/*) ;;
          *) refuse "$word names a path of this machine, which a new one lacks; give a URL (gs://), a path in" \
            "$folder/, or DATA=FOLDER for data, which is copied there" ;;
        esac
        ;;
    esac
  done
}
need_kind() { # WORDS...: refuse an ACCELERATOR that is none of these; without one, it is the CPU
  case " $* " in
    *" ${ACCELERATOR:-$1} "*) ;;
    *) refuse "ACCELERATOR is $ACCELERATOR; expected nothing, for the CPU, or one of: $*" ;;
  esac
}
need_tool() { # NAME RECIPE: refuse if a program is missing
  [ -n "$dry_run" ] || command -v "$1" >/dev/null ||
    refuse "$1 is not in PATH; 'python -m igd_jax.doctor --recipe=$2' says where it comes from"
}
quoted() { # WORDS...: one line that a shell splits into these words again
  local word line='' plain='^[A-Za-z0-9_./:=,@%+-]+$' quote="'\\''"
  for word in "$@"; do
    [[ $word =~ $plain ]] || word="'${word//\'/$quote}'"
    line="$line $word"
  done
  echo "${line# }"
}
run() { # COMMAND...: run it, or print it
  if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi
}
is_url() {
  case $1 in *://* | git@*) true ;; *) false ;; esac
}
clone() { # line of shell: the code of a URL into ./igd_jax, and nothing new if it is there
  local ref=HEAD
  case $CODE in *'#'*) ref=${CODE#*#} ;; esac
  echo "test -d igd_jax/.git || git clone --no-checkout $(quoted "${CODE%%#*}") igd_jax;" \
    "git -C igd_jax fetch $(quoted "${CODE%%#*}" "$ref") && git -C igd_jax checkout --detach FETCH_HEAD"
}
fetch_code() { # on this machine: set code, the folder of the code, which that of a URL is cloned to
  if is_url "$CODE"; then
    run bash -c "$(clone)"
    code=$PWD/igd_jax
  else
    # shellcheck disable=SC2034 # recipes read it
    code=$(absolute "$CODE")
  fi
}
absolute() { # PATH: the same from anywhere; URLs as they are
  if is_url "$1"; then echo "$1"; else case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac fi
}

if [ -n "${DATA:-}" ] && ! is_url "$DATA" && ! [ -f "$DATA/meta.json" ]; then
  refuse "DATA is $DATA, which is not a prepared folder (it holds no meta.json); make one with igd_jax.prepare"
fi
