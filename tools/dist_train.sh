#!/usr/bin/env bash
# Train on several GPUs (or, without any, CPU processes): tools/dist_train.sh CONFIG GPUS [ARGS]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT, as in mmseg.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [tools/train.py arguments]" >&2
    exit 2
fi
exec "$(dirname "$0")/launch.sh" train.py "$2" "$1" "${@:3}"
