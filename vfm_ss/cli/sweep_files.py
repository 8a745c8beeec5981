"""The files that name a sweep's data and VFMs, read in a process of its own: they need mmengine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vfm_ss.cli.call import foreseen
from vfm_ss.cli.process import answer_with, asked
from vfm_ss.errors import UsageError
from vfm_ss.sweep.cells import DataFile, Model


@dataclass(frozen=True)
class SweepFiles:
    """What the files of a sweep say, by their paths.

    Attributes:
        data: Data files.
        vfms: VFM files.
    """

    data: Mapping[str, DataFile]
    vfms: Mapping[str, Model]


def look_up(data: Sequence[str], vfms: Sequence[str], timm_names: Sequence[str]) -> SweepFiles:
    """Read data and VFM files, and refuse names that timm does not know.

    Args:
        data: Config files of data sets.
        vfms: Config files of VFMs.
        timm_names: Names of timm's models.

    Raises:
        UsageError: If one cannot be used; a line that names it.
    """
    if not (data or vfms or timm_names):
        return SweepFiles({}, {})
    request = {"data": list(data), "vfms": list(vfms), "timm": list(timm_names)}
    return parsed(asked("vfm_ss.cli.sweep_files", request, "the files cannot be read"))


def parsed(answer: Mapping) -> SweepFiles:
    """Return an answer's facts, of which JSON has made lists and dicts."""
    data = {
        file: DataFile(**{**f, "crop_size": tuple(f["crop_size"]), "notes": tuple(f["notes"])})
        for file, f in answer["data"].items()
    }
    vfms = {
        file: Model(**{**f, "backbone": tuple(f["backbone"])}) for file, f in answer["vfms"].items()
    }
    return SweepFiles(data, vfms)


def answer(request: Mapping) -> dict[str, dict]:
    """Do `look_up`'s work, in its process.

    Raises:
        UsageError: As above.
    """
    from vfm_ss.cli.data_files import read_data
    from vfm_ss.cli.vfm_files import check_timm, read_vfm

    for name in request["timm"]:
        check_timm(name)
    return {
        "data": {file: _read("data", file, read_data) for file in request["data"]},
        "vfms": {file: _read("VFM", file, read_vfm) for file in request["vfms"]},
    }


def _read(what: str, file: str, read: Callable[[str], dict]) -> dict:
    try:
        return read(file)
    except Exception as error:  # a config is code
        reason = foreseen(error) or f"{type(error).__name__}: {error}"
        raise UsageError(f"{what} file {file}: {' '.join(reason.split())}") from error


if __name__ == "__main__":
    answer_with(answer)
