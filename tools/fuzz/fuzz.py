#!/usr/bin/env python
"""Fuzz the readers of records and archives, guided by coverage.

    pip install 'vfm_ss[fuzz]'
    tools/fuzz/fuzz.py record -runs=1000000         # libFuzzer's options

An input that breaks a target is kept as crash-* (a hang: timeout-*) in the current folder; give
the file as the last argument to run it again, and add it to tests/properties once it is fixed.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

try:
    import atheris
except ImportError:
    sys.exit("fuzz.py: error: needs atheris: pip install 'vfm_ss[fuzz]'")

with atheris.instrument_imports(include=["json", "zipfile", "tarfile", "vfm_ss"]):
    import json
    import json.decoder  # noqa: F401
    import tarfile  # noqa: F401
    import zipfile  # noqa: F401

    from targets import TARGETS, seeds


def main() -> None:
    """Start libFuzzer on one target."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz.py {{{','.join(TARGETS)}}} [libFuzzer options]")
    target = TARGETS[sys.argv[1]]
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds(sys.argv[1])):
            (corpus / f"seed{number}").write_bytes(seed)
        replay = any(Path(arg).is_file() for arg in sys.argv[2:])
        options = ["-timeout=5", "-rss_limit_mb=2048", "-max_len=8192", "-len_control=0"]
        arguments = [sys.argv[0], *options, *sys.argv[2:], *([] if replay else [str(corpus)])]
        atheris.Setup(arguments, lambda data: target(data, Path(folder)) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
