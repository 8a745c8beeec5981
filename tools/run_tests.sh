#!/usr/bin/env bash
# Lint, build the documentation and test: tools/run_tests.sh [--stack onedl|openmmlab] [pytest arguments]
# Installs what it needs first: the default stack into .venv, OpenMMLab's releases into
# .venv-openmmlab.
set -euo pipefail
cd "$(dirname "$0")/.."
stack=onedl venv=.venv
if [ "${1:-}" = --stack ]; then
    stack=${2:-}
    shift $(($# < 2 ? $# : 2))
    if [ "$stack" != onedl ]; then venv=.venv-$stack; fi
fi
bash tools/install.sh --stack "$stack" tests docs
export PATH="$PWD/$venv/bin:$PATH"
export OMP_NUM_THREADS=1  # one test process per core instead
ruff check .
ruff format --check .
lint-imports --no-logo
NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --site-dir "$(mktemp --directory)"
exec python -m pytest --numprocesses auto --durations 20 "$@"
