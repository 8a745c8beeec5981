#!/usr/bin/env bash
# slurm.sh PARTITION JOB_NAME SCRIPT [ARGS]: run a tool of this folder under srun, a process for
# each GPU. Called by slurm_*.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=python
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$here/../.venv/bin/python" ]; then
    python="$here/../.venv/bin/python"  # nothing is activated: what tools/install.sh made
fi
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
# shellcheck disable=SC2086  # SRUN_ARGS holds several arguments
exec srun -p "$1" \
    --job-name="$2" \
    --gres=gpu:"${GPUS_PER_NODE:-4}" \
    --ntasks="${GPUS:-4}" \
    --ntasks-per-node="${GPUS_PER_NODE:-4}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "$python" -u "$here/$3" "${@:4}" --launcher slurm
