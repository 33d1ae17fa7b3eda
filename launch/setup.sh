#!/usr/bin/env bash
# Makes .venv in this checkout, with a Python of its own, and installs igd_jax there. Run again, it changes nothing.
#
#   launch/setup.sh [tpu|cuda]
#
# TPU VMs and many clusters ship a Python older than 3.11; uv brings one. It is installed if it is missing.
set -euo pipefail
# shellcheck source=launch/runs.sh
. "$(dirname "$0")/runs.sh"
case ${1:-} in
  '' | tpu | cuda) ;;
  *) refuse "the argument is $1; expected nothing, for the CPU, or tpu, or cuda" ;;
esac
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.local/bin
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | env UV_INSTALL_DIR="$HOME/.local/bin" sh
test -x .venv/bin/python || uv venv --seed --python '>=3.11,<3.14' .venv
uv pip install --python .venv/bin/python --editable ".${1:+[$1]}"
