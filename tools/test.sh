#!/usr/bin/env bash
# Lint and test: tools/test.sh [pytest arguments]. Installs what it needs into .venv first.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/install.sh tests
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1  # one test process per core instead
ruff check .
ruff format --check .
exec python -m pytest --numprocesses auto "$@"
