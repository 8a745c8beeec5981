#!/usr/bin/env bash
# The benchmark in miniature, from nothing to a ranking: tools/demo.sh [tools/demo.py arguments]
set -euo pipefail
bash "$(dirname "$0")/install.sh"
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../.venv/bin/python" "$here/demo.py" "$@"
