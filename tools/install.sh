#!/usr/bin/env bash
# Install vfm_ss and all it needs into .venv in the project's root. Done again, it does nothing.
#   tools/install.sh [EXTRA ...]     extras beside mminstall, for example: tests
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/.installed-$(cat setup.py requirements/*.txt | "$python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])')
extras=mminstall
for extra in "$@"; do extras+=,$extra; done
if [ -f "$stamp-$extras" ]; then exit 0; fi

"$python" -c 'import sys; sys.exit("vfm_ss needs Python 3.10 or newer, but python3 is "
    + sys.version.split()[0] + "; set PYTHON to a newer one") if sys.version_info < (3, 10) else 0'
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "installing vfm_ss[$extras] into $PWD/.venv (a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint requirements/constraints.txt --editable ".[$extras]"
touch "$stamp-$extras"
