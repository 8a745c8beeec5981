#!/usr/bin/env bash
# Evaluate on several GPUs (or, without any, CPU processes):
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGS]
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [tools/test.py arguments]" >&2
    exit 2
fi
exec "$(dirname "$0")/launch.sh" test.py "$3" "$1" "$2" "${@:4}"
