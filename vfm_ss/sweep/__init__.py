"""Train many runs, whatever happens to one of them; see docs/sweep.md.

`plan` says what to train, `worker` trains one run and survives its failures, `local` and `slurm`
start workers, `status` shows how far they are. Who trains a run is told by the locks of
`vfm_ss.run_lock`. No torch needed.
"""
