"""torchrun, without a traceback of its own: the failed processes have said what was wrong."""

import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # it could not say so itself
            name = signal.Signals(-failure.exitcode).name
            sys.exit(f"error: process {rank} was ended by {name}, and the others with it")
        sys.exit(failure.exitcode)
    except SignalException as error:
        sys.exit(128 + error.sigval)
