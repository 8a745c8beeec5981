"""What a sweep trains: VFMs x settings x seeds, or config files x seeds."""

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vfm_ss.protocol.settings import SETTINGS, config_name, is_published
from vfm_ss.protocol.vfms import FAMILIES, VFMS
from vfm_ss.sweep.identity import Asked

#: The configs and tools of the repository, which also travel inside an installed package.
_MIM = Path(__file__).resolve().parents[1] / ".mim"


@dataclass(frozen=True)
class PlannedRun:
    """A run that a sweep is to train."""

    name: str  # of its config
    seed: int
    work_dir: Path  # WORK_DIR/NAME/seedK
    command: tuple[str, ...]  # trains it, from its last checkpoint if there is one
    arguments: tuple[str, ...] = ()  # those of tools/train.py in it
    asked: Asked | None = field(default=None, compare=False, repr=False)  # what that would train

    def __str__(self) -> str:
        """Name it in messages."""
        return f"{self.name} seed {self.seed}"

    @property
    def config_hash(self) -> str | None:
        """Checksum of its configuration, where that has been asked."""
        return self.asked.hash if self.asked else None

    def shell(self) -> str:
        """Return the command as one would type it."""
        return shlex.join(self.command)


def expand(
    work_dir: str | Path,
    vfms: Sequence[str] = (),
    settings: Sequence[str] = (),
    configs: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    options: Sequence[str] = (),
    gpus_per_run: int = 1,
) -> list[PlannedRun]:
    """List the runs of a sweep, in the order in which they start: seed by seed.

    So all models have a first score before any has a second one.

    Args:
        work_dir: Folder of the runs' folders.
        vfms: Keys of ``VFMS``; ``paper``, ``next`` and ``all`` stand for those of a family or all,
            each under the settings at whose size it is published.
        settings: Keys of ``SETTINGS``; ``all`` stands for all of them.
        configs: Config files, instead of ``vfms`` and ``settings`` or beside them.
        seeds: Random seeds.
        options: Further arguments of tools/train.py.
        gpus_per_run: Processes that train a run together, each on a GPU of its own.

    Raises:
        ValueError: If a name, a file or an option is unknown or given twice.
    """
    if bool(vfms) != bool(settings):
        raise ValueError(
            "--vfms and --settings go together: a run is a VFM under a setting; "
            f"give --{'settings' if vfms else 'vfms'} too, or 'all'"
        )
    if not vfms and not configs:
        raise ValueError("nothing to train: give --vfms and --settings, or --configs")
    files = {}
    groups = {**FAMILIES, "all": VFMS}
    grid = [
        _config_file(config_name(vfm, setting))
        for setting in _expanded(settings, {"all": SETTINGS})
        for vfm in _expanded(vfms, groups)
        if vfm in vfms or is_published(vfm, setting)
    ]
    for file in [*grid, *map(Path, configs)]:
        if not file.is_file():
            raise ValueError(f"config {file} does not exist")
        other = files.setdefault(file.stem, file)
        if other is not file and not os.path.samefile(other, file):
            raise ValueError(
                f"{other} and {file} would share the folder {file.stem}; rename one of them"
            )
    if negative := [seed for seed in seeds if seed < 0]:
        raise ValueError(f"seed {negative[0]} is negative")
    return [
        _run(Path(work_dir), file, seed, options, gpus_per_run)
        for seed in dict.fromkeys(seeds)
        for file in files.values()
    ]


def _run(work_dir: Path, config: Path, seed: int, options: Sequence[str], gpus: int) -> PlannedRun:
    folder = work_dir / config.stem / f"seed{seed}"
    command = [sys.executable]
    if gpus > 1:  # --standalone finds a free port, so that runs do not meet
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"]
    command += [_short(_MIM / "tools" / "train.py")]
    arguments = [str(config), "--seed", str(seed), "--work-dir", str(folder), "--resume"]
    arguments += ["--launcher", "pytorch"] if gpus > 1 else []
    arguments += options
    return PlannedRun(config.stem, seed, folder, (*command, *arguments), tuple(arguments))


def _config_file(name: str) -> Path:
    return Path(_short(_MIM / "configs" / "vfm" / f"{name}.py"))


def _short(path: Path) -> str:
    """Return a path as seen from here, where that is shorter."""
    path = path.resolve()
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _expanded(names: Sequence[str], groups: dict[str, Iterable[str]]) -> list[str]:
    """Put the members of a group in the place of its name; each name once."""
    return list(dict.fromkeys(one for name in names for one in groups.get(name, (name,))))
