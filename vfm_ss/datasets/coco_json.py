"""COCO's annotations in JSON, which are no masks: recognised, and the command that makes masks."""

import json
import posixpath

# What makes masks of COCO's annotations; checked with datumaro 1.13. It looks for the files in
# COCO's layout, FOLDER/annotations/{panoptic,stuff,instances}_NAME.json and FOLDER/images/NAME.
_CONVERTER = (
    "datum convert -if {kind} -i {folder} -f voc_segmentation -o MASKS -- --label-map source "
    "--apply-colormap no"
)
_POLYGONS = "datum transform -o WITHOUT_POLYGONS -t polygons_to_masks {folder}:{kind} && "


def coco_kind(path: str, data: bytes) -> str | None:
    """Return datumaro's name of a COCO format; None for other JSON."""
    try:
        content = json.loads(data)
    except ValueError:
        return None
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list) or not annotations or not isinstance(annotations[0], dict):
        return None
    if "segments_info" in annotations[0]:
        return "coco_panoptic"
    if "segmentation" not in annotations[0]:
        return None
    return "coco_stuff" if posixpath.basename(path).startswith("stuff") else "coco_instances"


def coco_remedy(path: str, kind: str) -> str:
    """Say how masks are made of a COCO file.

    Args:
        path: The file.
        kind: See `coco_kind`.
    """
    folder = posixpath.dirname(posixpath.dirname(path)) or "."
    command = _CONVERTER.format(kind=kind, folder=folder)
    if kind == "coco_instances":
        command = _POLYGONS.format(kind=kind, folder=folder) + _CONVERTER.format(
            kind=kind, folder="WITHOUT_POLYGONS"
        )
    return (
        f"{path}: COCO's annotations are not masks; convert them with `{command}` (pip install "
        "'datumaro[cli]'), then labels='MASKS/SegmentationClass' and classes as the lines of "
        "MASKS/labelmap.txt count them, from 0"
    )
