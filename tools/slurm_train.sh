#!/usr/bin/env bash
# Train on a Slurm cluster: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [ARGS]
# GPUS (4), GPUS_PER_NODE (4), CPUS_PER_TASK (5) and SRUN_ARGS as in mmseg.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [WORK_DIR] [tools/train.py arguments]" >&2
    exit 2
fi
args=("${@:4}")
if [ $# -gt 3 ] && [[ $4 != -* ]]; then args=(--work-dir "$4" "${@:5}"); fi
exec "$(dirname "$0")/slurm.sh" "$1" "$2" train.py "$3" ${args[@]+"${args[@]}"}
