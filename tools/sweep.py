#!/usr/bin/env python
"""Train many runs, whatever happens to one of them, and see how far they are."""

import os

if __name__ == "__main__":
    os.environ["VFM_SS_REGISTER"] = "0"  # planning and watching need neither torch nor mmseg
    from vfm_ss.cli.sweep import main

    raise SystemExit(main(prog="sweep.py"))
