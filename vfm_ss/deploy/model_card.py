"""The README of a published model, with the front matter that the Hugging Face Hub reads."""

from collections.abc import Mapping

import yaml
from mmengine.config import Config

from vfm_ss.protocol.records import Record
from vfm_ss.protocol.vfms import VFMS
from vfm_ss.version import __version__

#: Licences that the hub knows by these names.
_HUB_LICENCES = ("apache-2.0", "mit", "cc-by-nc-4.0")
_BY_NAME = {vfm.name: vfm for vfm in VFMS.values()}
_PAPER = "https://arxiv.org/abs/2404.12172"

_CARD = """---
{front}---
# {title}

A model for semantic segmentation, trained with [MMSegmentation](https://github.com/open-mmlab/mmsegmentation)
and vfm_ss {version}, under the protocol of [How to Benchmark Vision Foundation Models for Semantic
Segmentation?]({paper})

{facts}

**Licence**: {licence}

## Use

```bash
vfm-ss test config.py model.safetensors        # evaluates; set test_dataloader.dataset.data_root
vfm-ss predict config.py model.safetensors IMAGE_OR_FOLDER --out predictions
```

```python
import vfm_ss
from mmseg.apis import inference_model, init_model

model = init_model("config.py", "model.safetensors", device="cpu")
result = inference_model(model, "image.jpg").pred_sem_seg.data[0]  # (H, W), classes
```
{imports}
`config.py` is the resolved config of the training, its absolute paths reduced to their last part.
{record}"""


def licence_of(backbone: Mapping) -> tuple[str | None, str]:
    """Return the licence of the pretrained weights that a backbone's config asks for.

    Returns:
        Its name, None where it is not known; where it comes from.
    """
    vfm = _BY_NAME.get(backbone.get("type"))
    pretrained = backbone.get("pretrained", True)
    if pretrained is False:
        return None, "as training began from random weights"
    if vfm is not None:
        note = "" if pretrained is True else ", if the file that training began from is theirs"
        return vfm.licence, f"that of {vfm.name}'s published weights{note}"
    return None, "as the VFM is none of this package's"


def model_card(
    title: str,
    cfg: Config,
    record: Record | None,
    step: int | None,
    licence: str | None,
    source: str,
    classes: list[str],
) -> str:
    """Write the README.

    Args:
        title: Name of the config.
        cfg: The config.
        record: What the run measured, if that is known.
        step: Optimiser step of the checkpoint, if that is known.
        licence: Name of the licence, if that is known.
        source: Where the licence comes from.
        classes: Names of the classes.
    """
    backbone = cfg.model.backbone
    front = {
        **_front_licence(licence),
        "library_name": "vfm_ss",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "mmsegmentation", "vision-foundation-model"],
    }
    facts = {
        "backbone": f"{backbone.type} {backbone.get('arch', '')}".strip(),
        "decoder": cfg.model.decode_head.type,
        "classes": f"{len(classes)}: {', '.join(classes)}" if classes else "",
        "checkpoint": f"step {step}" if step is not None else "",
        **(_measured(record, step) if record else {}),
    }
    modules = [m for m in (cfg.get("custom_imports") or {}).get("imports", ()) if m != "vfm_ss"]
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=title,
        version=__version__,
        paper=_PAPER,
        facts="\n".join(f"- **{name}**: {value}" for name, value in facts.items() if value),
        licence=f"{licence}, {source}." if licence else f"not known, {source}.",
        imports=f"\nThe config imports {', '.join(modules)}, which must be there, too.\n"
        if modules
        else "",
        record="`record.json` says what the run measured, with which versions, and on what.\n"
        if record
        else "",
    )


def _front_licence(licence: str | None) -> dict[str, str]:
    if licence in (None, *_HUB_LICENCES):
        return {"license": licence} if licence else {}
    return {"license": "other", "license_name": licence}


def _measured(record: Record, step: int | None) -> dict[str, str]:
    """Say what the record knows of this checkpoint; a score of another step is not its score."""
    scores = dict(record.history)
    score = scores.get(step)
    vfm = VFMS.get(record.vfm)
    return {
        "trained on": f"{record.train_dataset}, {record.max_steps} steps of "
        f"{record.effective_batch} images, seed {record.seed}"
        if None not in (record.max_steps, record.effective_batch)
        else record.train_dataset,
        "mIoU": f"{score:.2f} % on {record.eval_dataset}, one run"
        if score is not None
        else "not measured at this step",
        "pretrained weights": _weights(record),
        "paper of the VFM": f"https://arxiv.org/abs/{vfm.paper}" if vfm else "",
        "remarks": "; ".join(record.remarks),
    }


def _weights(record: Record) -> str:
    if not record.weights or not record.weights.get("source"):
        return ""
    checksum = record.weights.get("sha256")
    return record.weights["source"] + (f" (SHA-256 {checksum})" if checksum else "")
