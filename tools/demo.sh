#!/usr/bin/env bash
# The benchmark in miniature, from nothing to a ranking: tools/demo.sh [--jobs N]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bash "$root/tools/install.sh"
exec "$root/.venv/bin/python" "$root/projects/demo/demo.py" "$@"
