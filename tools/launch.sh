#!/usr/bin/env bash
# launch.sh SCRIPT GPUS [ARGS]: run a tool of this folder under torchrun. Called by dist_*.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=python
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$here/../.venv/bin/python" ]; then
    python="$here/../.venv/bin/python"  # nothing is activated: what tools/install.sh made
fi
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/launch.py" \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" \
    "$here/$1" "${@:3}" --launcher pytorch
