"""Rank vision foundation models from finished runs: tables, Kendall's tau, plots and a page."""

from vfm_ss.benchmark.cli_rank import main

if __name__ == "__main__":
    raise SystemExit(main())
