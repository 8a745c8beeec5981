#!/usr/bin/env bash
# Install vfm_ss and all it needs into the project's root. Done again, it does nothing.
#   tools/install.sh [--stack onedl|openmmlab] [EXTRA ...]     for example: tools/install.sh tests
# The default stack, OneDL's, goes into .venv; OpenMMLab's own releases into .venv-openmmlab.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
stack=onedl
if [ "${1:-}" = --stack ]; then
    stack=${2:-}
    shift $(($# < 2 ? $# : 2))
fi
case $stack in
    onedl) venv=.venv extras=mminstall ;;
    openmmlab) venv=.venv-openmmlab extras=openmmlab ;;
    *) echo "install.sh: error: --stack is onedl or openmmlab, not '$stack'" >&2 && exit 2 ;;
esac
for extra in "$@"; do extras+=,$extra; done

python=${PYTHON:-python3}
stamp=$venv/.installed-$(cat setup.py requirements/*.txt | "$python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])')-$extras
if [ -f "$stamp" ]; then exit 0; fi

pip() {
    PATH="$root/$venv/bin:$PATH" "$root/$venv/bin/python" -m pip "$@" \
        --quiet --disable-pip-version-check --constraint "$root/requirements/constraints.txt"
}

# mmseg 1.2 imports mmcv's compiled ops, and no wheel of them fits a current torch. Nothing here calls
# them, so they are compiled in the cheapest way: for the CPU, without optimisation, and most of the
# sources in one piece, as they all spend their time on torch's headers (2 minutes on 2 cores, not 9).
compile_mmcv() {  # VERSION FOLDER
    cd "$2"
    pip download --no-deps --no-binary mmcv --no-build-isolation "mmcv==$1"
    tar --extract --gzip --file "mmcv-$1.tar.gz"
    cd "mmcv-$1"
    (
        cd mmcv/ops/csrc/pytorch
        mkdir pieces
        mv ./*.cpp pieces
        echo '#include <torch/extension.h>'
        printf '#include "%s"\n' pieces/*.cpp
    ) > all.cpp
    mv all.cpp mmcv/ops/csrc/pytorch
    MMCV_WITH_OPS=1 FORCE_CUDA=0 CUDA_VISIBLE_DEVICES='' MAX_JOBS=$(nproc) CFLAGS='-O0 -g0 -w' \
        pip wheel --no-deps --no-build-isolation --wheel-dir "$2" .
}

install_mmcv() {
    pip install torch torchvision 'setuptools<81' wheel ninja
    local version kept log
    version=$(sed -n 's/^mmcv==//p' requirements/constraints.txt)
    kept=${XDG_CACHE_HOME:-$HOME/.cache}/vfm_ss/mmcv-$version-$("$venv/bin/python" -c \
        'import sys, torch; print(f"torch{torch.__version__}-py{sys.version_info[0]}.{sys.version_info[1]}")')
    if ! compgen -G "$kept/*.whl" > /dev/null; then
        rm -rf "$kept.unfinished"
        mkdir -p "$kept.unfinished"
        log=$kept.log
        echo "compiling mmcv $version (about 2 minutes on 2 cores), to be kept in $kept"
        compile_mmcv "$version" "$kept.unfinished" > "$log" 2>&1 &  # so that set -e holds in it
        if ! wait $!; then
            grep -E 'rror:' "$log" | head -n 5 >&2
            echo "install.sh: error: mmcv $version could not be compiled, see $log; it needs a" \
                "C++ compiler and Python's headers (Debian: apt-get install g++ python3-dev)" >&2
            exit 1
        fi
        mkdir -p "$kept"
        mv "$kept.unfinished"/*.whl "$kept"
        rm -rf "$kept.unfinished"
    fi
    pip install "$kept"/*.whl
}

"$python" -c 'import sys; sys.exit("vfm_ss needs Python 3.10 to 3.12, but python3 is "
    + sys.version.split()[0] + "; set PYTHON to one of these") \
    if not (3, 10) <= sys.version_info[:2] <= (3, 12) else 0'
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "installing vfm_ss[$extras] into $PWD/$venv (a few minutes the first time)"
if [ "$stack" = openmmlab ]; then install_mmcv; fi
pip install --editable ".[$extras]"
touch "$stamp"
