"""Train many runs, whatever happens to one of them; see docs/sweep.md.

`plan` says what to train, `lock` who trains it, `worker` trains one run and survives its failures,
`engines` starts workers, `scheduler` keeps all of it going, `status` shows it. No torch needed.
"""
