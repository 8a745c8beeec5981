"""How every command runs: its exit status, and one line for an error that we foresaw.

A foreseen error is one whose line says all, so the traceback is left to ``--verbose``:

- what a ``raise`` statement of this package raises, as CONTRIBUTING.md asks for a wrong input;
- what the system says of a file;
- a module that is missing;
- a type or an argument in a config that mmengine's registry does not know.

Everything else is a fault of ours or of a library, and its traceback is shown.
"""

import _thread
import argparse
import contextlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vfm_ss.errors import UsageError
from vfm_ss.text import printable

EXIT_STATUSES = (
    "Exit status: 0 if done, 1 at bad data or a failed run, 2 at wrong arguments or with nothing "
    "to do, 130 after Ctrl-C."
)
_PACKAGE = Path(__file__).resolve().parents[1]
_KINDS = (ValueError, OSError, ImportError, RuntimeError)
_FRAME = re.compile(r'^ *File "(.+)", line \d+, in .*\n *(.*)$', re.MULTILINE)


def command(
    name: str,
    parser: Callable[[str], argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int | None],
) -> Callable[..., int]:
    """Make the ``main(argv, prog)`` of a command.

    Args:
        name: Name of the command in its messages, unless ``main`` gets another as ``prog``.
        parser: Makes the parser of its arguments, given the name.
        run: The command itself, see `call`.
    """

    def main(argv: Sequence[str] | None = None, prog: str = name) -> int:
        return call(run, parser(prog), argv)

    return main


def call(
    run: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse arguments and run a command.

    Args:
        run: The command. It returns its exit status, None for 0.
        parser: Parser of its arguments.
        argv: Arguments; those of the process by default.

    Returns:
        Exit status, see ``EXIT_STATUSES``.
    """
    add_verbose(parser)
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack a letter
        stream.reconfigure(errors="replace")
    verbose = False
    try:
        args = parser.parse_args(argv)
        verbose = vars(args).pop("verbose", False)
        # A launcher's processes may wait for each other, where nothing can be raised.
        alone = getattr(args, "launcher", "none") == "none"
        with (
            _repeating_lost_interrupts(),
            _tidying_at_sigterm() if alone else contextlib.nullcontext(),
        ):
            status = run(args) or 0
            sys.stdout.flush()
        return status
    except (KeyboardInterrupt, Exception) as error:
        if _follows(error, KeyboardInterrupt):
            print(f"{parser.prog}: interrupted", file=sys.stderr)
            return 130
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 1
        line = foreseen(error)
        if line is None:
            raise
        if verbose:
            traceback.print_exc()
        print(f"{parser.prog}: error: {printable(line)}", file=sys.stderr)
        return 2 if isinstance(error, (UsageError, ImportError)) else 1
    finally:
        if argv is None:  # all that this process was to do
            exit_at_interrupt()


def exit_at_interrupt() -> None:
    """Let Ctrl-C end Python's own end at once, which would print a traceback."""
    with contextlib.suppress(ValueError):  # in another thread
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))


@contextlib.contextmanager
def _repeating_lost_interrupts() -> Iterator[None]:
    """Send Ctrl-C again where Python prints a traceback and goes on: in callbacks, as of a fork."""
    owner, others = os.getpid(), sys.unraisablehook

    def again():
        time.sleep(0.05)
        os.kill(owner, signal.SIGINT)

    def hook(lost):
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            others(lost)
        elif os.getpid() == owner:
            _thread.start_new_thread(again, ())

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = others


class _Terminated(BaseException):
    """SIGTERM has come."""


@contextlib.contextmanager
def _tidying_at_sigterm() -> Iterator[None]:
    """Let SIGTERM remove temporary files and end processes that read images before it ends us.

    These would wait for ever to hand over what they have read.
    """
    owner, terminated = os.getpid(), False

    def tell(number, frame):
        signal.signal(number, signal.SIG_DFL)  # another one ends us at once
        if os.getpid() != owner:
            os.kill(os.getpid(), number)
        raise _Terminated

    with contextlib.suppress(ValueError):  # in another thread
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, tell)
    try:
        yield
    except BaseException as error:
        terminated = _follows(error, _Terminated)
        if not terminated:
            raise
    finally:
        if signal.getsignal(signal.SIGTERM) is tell:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if terminated:
        import multiprocessing  # here: every command's start imports this module

        for child in multiprocessing.active_children():
            child.terminate()
            child.join(5)
        os.kill(os.getpid(), signal.SIGTERM)


def _follows(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Tell whether an error is of a kind, or of code that has caught everything and raised another.

    mmengine does where it formats a config: a SyntaxError at Ctrl-C.
    """
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _nobody_reads() -> bool:
    """Tell whether who reads the output has had enough of it, as in ``rank | head``."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose``; `call` does for a command, which does for its own commands."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="at an error, print the traceback, too",
    )


def foreseen(error: Exception) -> str | None:
    """Return what an error says in one line if that says all, else None.

    Args:
        error: An exception with its traceback.
    """
    text = str(error)
    if re.match(r"Caught \w+ in DataLoader worker process", text):
        # torch raises a worker's error again, with its whole traceback as the message.
        frames = _FRAME.findall(text)
        text = text.rstrip().splitlines()[-1].partition(": ")[2]
    else:
        frames = [(f.filename, f.line) for f in traceback.extract_tb(error.__traceback__)]
    if not frames:
        return None
    file, code = Path(frames[-1][0]).resolve(), frames[-1][1]
    if file.is_relative_to(_PACKAGE) and code.startswith("raise "):
        return text if isinstance(error, _KINDS) else None
    missing: BaseException | None = error
    while isinstance(missing, ImportError) and not isinstance(missing, ModuleNotFoundError):
        missing = missing.__cause__ or missing.__context__  # mmengine raises its own instead
    if isinstance(missing, ModuleNotFoundError) and not (missing.name or "").startswith("vfm_ss"):
        return f"{missing}; install it, or add the folder that holds it to PYTHONPATH"
    while isinstance(error, TypeError) and code.startswith("super().__init__("):
        frames.pop()  # a class hands arguments that it does not know to its base
        file, code = Path(frames[-1][0]).resolve(), frames[-1][1]
    if file.parts[-3:-1] == ("mmengine", "registry") and isinstance(error, (KeyError, TypeError)):
        # KeyError quotes its text; mmengine adds where to read of registries.
        text = str(error.args[0]).partition(". Please check")[0] if error.args else text
        return f"{text}; correct the config, or name the module that has it in custom_imports"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}{_missing_folder(error)}"
    return None


def _missing_folder(error: OSError) -> str:
    """Name the folder that is missing where a file is, as a work dir that was deleted."""
    if not (isinstance(error, FileNotFoundError) and isinstance(error.filename, str)):
        return ""
    missing = [str(p) for p in Path(error.filename).absolute().parents if not p.is_dir()]
    return f"; the folder {missing[-1]} is gone or was never there" if missing else ""
