#!/usr/bin/env bash
# Lint and test: tools/test.sh [pytest arguments]. Installs what it needs into .venv first.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/install.sh tests
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1
ruff check .
ruff format --check .
exec python -m pytest "$@"
