"""Images on the command line, and the files that are saved of them. Standard library only."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from vfm_ss.errors import UsageError

#: Ends of file names that are looked for in folders; a file that is named itself may have any.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp"),
    *(".gif", ".pgm", ".ppm", ".pnm", ".avif", ".mpo", ".jp2"),
}


def find_images(inputs: Iterable[str | Path], out: str | Path) -> dict[Path, Path]:
    """Find images, those in sub-folders included.

    Args:
        inputs: Images and folders. Of what they hold hidden files and what ``out`` holds are left
            out.
        out: Folder that results will be saved in.

    Returns:
        The place of each image in the folder that was given, by its path, in order.

    Raises:
        UsageError: If there is none, an input does not exist, or ``out`` is where images are.
    """
    found, out = {}, Path(out)
    for given in map(Path, inputs):
        if given.is_file():
            found.setdefault(given, Path(given.name))
        elif given.is_dir():
            if out.resolve() in (given.resolve(), *given.resolve().parents):
                raise UsageError(
                    f"--out {out} is the folder of images {given} or around it, where results "
                    "would be taken for images; choose another folder"
                )
            found |= {p: p.relative_to(given) for p in _below(given, out) if p not in found}
        else:
            raise UsageError(f"{given} does not exist; give images, or folders of images")
    if not found:
        raise UsageError(
            f"there is no image in {' and '.join(map(str, inputs))}: files must end in "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return found


def plan_outputs(
    images: Mapping[Path, Path], out: str | Path, kinds: Mapping[str, str], skip_existing: bool
) -> dict[Path, dict[str, Path]]:
    """Name the files of each image.

    Args:
        images: What `find_images` returns.
        out: Folder of the files.
        kinds: For the name of each sub-folder of ``out`` ('' for ``out`` itself) the end of the
            names of its files.
        skip_existing: Leave out an image whose files are all there.

    Returns:
        The file of each kind, by the path of the image.

    Raises:
        UsageError: If a file exists (and images are not skipped) or is one of the images, or two
            images share one.
    """
    plan, taken = {}, {}
    originals = {os.path.realpath(image) for image in images}
    for image, place in images.items():
        files = {k: Path(out, k, place).with_suffix(suffix) for k, suffix in kinds.items()}
        for file in files.values():
            other = taken.setdefault(os.path.abspath(file), image)
            if other != image:
                raise UsageError(
                    f"{file} would be the result of {other} and of {image}; predict them one after "
                    "another, each in an --out of its own, or give a folder that holds both"
                )
        existing = [file for file in files.values() if file.exists()]
        for file in existing:
            if os.path.realpath(file) in originals:
                raise UsageError(f"{file} is one of the images: choose another --out")
        if skip_existing and len(existing) == len(files):
            continue
        if existing and not skip_existing:
            raise UsageError(
                f"{existing[0]} exists: choose another --out, or --skip-existing to go on with "
                "what is missing"
            )
        plan[image] = files
    return plan


def _below(folder: Path, left_out: Path) -> list[Path]:
    """List the images in a folder and its sub-folders, linked ones included, each folder once."""
    found, seen = [], {left_out.resolve()}
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        seen.add(here.resolve())
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() not in seen
        )
        found += [
            here / name
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return found
