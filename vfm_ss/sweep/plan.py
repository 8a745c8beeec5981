"""What a sweep trains: VFMs x settings x seeds, or config files x seeds."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vfm_ss.errors import UsageError
from vfm_ss.files import write_atomically
from vfm_ss.sweep.cells import MIM, Cell, config_text
from vfm_ss.sweep.factors import Product
from vfm_ss.sweep.identity import Asked


@dataclass(frozen=True)
class PlannedRun:
    """A run that a sweep is to train."""

    name: str  # of its config
    seed: int
    work_dir: Path  # WORK_DIR/NAME/seedK
    command: tuple[str, ...]  # trains it, from its last checkpoint if there is one
    arguments: tuple[str, ...] = ()  # those of tools/train.py in it
    cell: Cell | None = field(default=None, compare=False, repr=False)  # in a product of factors
    text: str | None = field(default=None, compare=False, repr=False)  # of a config to be written
    asked: Asked | None = field(default=None, compare=False, repr=False)  # what that would train

    def __str__(self) -> str:
        """Name it in messages."""
        return f"{self.name} seed {self.seed}"

    @property
    def config_hash(self) -> str | None:
        """Checksum of its configuration, where that has been asked."""
        return self.asked.hash if self.asked else None

    @property
    def config(self) -> Path:
        """Its config file."""
        return Path(self.arguments[0])

    def shell(self) -> str:
        """Return the command as one would type it."""
        return shlex.join(self.command)


def expand(
    work_dir: str | Path,
    product: Product | None = None,
    configs: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    options: Sequence[str] = (),
    gpus_per_run: int = 1,
) -> list[PlannedRun]:
    """List the runs of a sweep, in the order in which they start: seed by seed.

    So all models have a first score before any has a second one. A cell that the repository has no
    config for gets one, ``WORK_DIR/NAME/NAME.py``, see `missing_configs`.

    Args:
        work_dir: Folder of the runs' folders.
        product: The cells of a product of factors.
        configs: Config files, instead of a product or beside it.
        seeds: Random seeds.
        options: Further arguments of tools/train.py.
        gpus_per_run: Processes that train a run together, each on a GPU of its own.

    Raises:
        ValueError: If a file does not exist, or two would share a folder.
    """
    cells = product.cells if product is not None else ()
    if not cells and not configs:
        raise ValueError(
            "nothing to train: give --vfms with --settings or with factors (--data, --decoders, "
            "...), or --configs"
        )
    _refuse_same_names(cells)
    files: dict[str, Path] = {}
    known: dict[str, tuple[Cell | None, str | None]] = {}
    for cell in cells:
        leaf = cell.leaf
        text = None if leaf is not None else config_text(cell)
        file = Path(work_dir, cell.name, f"{cell.name}.py") if leaf is None else Path(_short(leaf))
        files[cell.name], known[cell.name] = file, (cell, text)
    for file in map(Path, configs):
        other = files.setdefault(file.stem, file)
        if not file.is_file():
            raise ValueError(f"config {file} does not exist")
        if other is not file and not (other.is_file() and os.path.samefile(other, file)):
            raise ValueError(
                f"{other} and {file} would share the folder {file.stem}; rename one of them"
            )
    if negative := [seed for seed in seeds if seed < 0]:
        raise ValueError(f"seed {negative[0]} is negative")
    return [
        _run(Path(work_dir), file, seed, options, gpus_per_run, *known.get(name, (None, None)))
        for seed in dict.fromkeys(seeds)
        for name, file in files.items()
    ]


def _refuse_same_names(cells: Sequence[Cell]) -> None:
    """Refuse data sets or VFMs of one name, whose runs would share a folder.

    Raises:
        ValueError: If there are two.
    """
    names: dict[str, Cell] = {}
    for cell in cells:
        other = names.setdefault(cell.name, cell)
        if other is not cell:
            a, b = (getattr(one.data, "file", one.data.name) for one in (other, cell))
            if a == b:
                a, b = (one.model.file or one.model.key for one in (other, cell))
            raise ValueError(
                f"{a} and {b} would both be trained as {cell.name}; give one of them another name"
            )


def missing_configs(runs: Sequence[PlannedRun]) -> dict[Path, str]:
    """Return the configs of cells that are to be written, with their texts.

    A file that is there already is only ever used if it holds what would be written: nothing that
    somebody else has put there is executed.

    Args:
        runs: The runs.

    Raises:
        UsageError: If a file holds something else.
    """
    found = {}
    for path, text in {run.config: run.text for run in runs if run.text is not None}.items():
        if not os.path.lexists(path):
            found[path] = text
        elif not path.is_file() or path.read_bytes() != text.encode():
            raise UsageError(
                f"{path} is not the config that this sweep would write: the data file, the version "
                "of vfm_ss or the file itself has changed; give another --work-dir, delete its "
                f"folder, or train it as it is with --configs {path}"
            )
    return found


def write_configs(runs: Sequence[PlannedRun]) -> None:
    """Write the configs of cells for which the repository has none.

    Raises:
        UsageError: As `missing_configs`.
    """
    for path, text in missing_configs(runs).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())


def _run(
    work_dir: Path,
    config: Path,
    seed: int,
    options: Sequence[str],
    gpus: int,
    cell: Cell | None,
    text: str | None,
) -> PlannedRun:
    folder = work_dir / config.stem / f"seed{seed}"
    command = [sys.executable]
    if gpus > 1:  # --standalone finds a free port, so that runs do not meet
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"]
    command += [_short(MIM / "tools" / "train.py")]
    arguments = [str(config), "--seed", str(seed), "--work-dir", str(folder), "--resume"]
    arguments += ["--launcher", "pytorch"] if gpus > 1 else []
    arguments += options
    return PlannedRun(
        config.stem, seed, folder, (*command, *arguments), tuple(arguments), cell, text
    )


def _short(path: Path) -> str:
    """Return a path as seen from here, where that is shorter."""
    path = path.resolve()
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
