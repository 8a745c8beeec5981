"""Export each VFM with random weights to ONNX, and say how far the graph is from the model.

Weights are drawn at random around their initial values, so that layer scales and norms count. The
differences are those that `vfm-ss export` compares: on real images, against torch in fp32.

    python tools/benchmarks/export.py --images photo.jpg
    python tools/benchmarks/export.py --vfms sam --heads mask2former --fp16 --images photo.jpg
"""

import tempfile
import time
from pathlib import Path

import torch
from common import device_name, make_parser, versions
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import vfm_ss  # noqa: F401
from vfm_ss.deploy.export import export
from vfm_ss.protocol.settings import config_name
from vfm_ss.protocol.vfms import FAMILIES

CONFIGS = Path(__file__).parents[2] / "configs" / "vfm"
SETTINGS = {"linear": "default", "mask2former": "mask2former"}


def parse_args():
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--vfms", nargs="+", default=FAMILIES["paper"])
    parser.add_argument("--heads", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--images", nargs="+", default=(), help="images to compare on")
    parser.add_argument("--fp16", action="store_true")
    parser.add_argument("--dynamic-batch", action="store_true")
    return parser.parse_args()


def make_checkpoint(config: Path, folder: Path) -> Path:
    """Save random weights of a config's model."""
    cfg = Config.fromfile(config)
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build({**cfg.model, "backbone": {**cfg.model.backbone, "pretrained": False}})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    path = folder / "random.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return path


def main() -> None:
    """Export and print."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{device_name()}; {versions()}")
    for vfm in args.vfms:
        for head in args.heads:
            config = CONFIGS / f"{config_name(vfm, SETTINGS[head])}.py"
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = make_checkpoint(config, Path(folder))
                start = time.monotonic()
                *_, compared, _ = export(
                    config,
                    checkpoint,
                    [Path(folder) / "model.onnx"],
                    {"model.backbone.pretrained": False},
                    fp16=args.fp16,
                    dynamic_batch=args.dynamic_batch,
                    images=args.images,
                )
            seconds = time.monotonic() - start
            print(f"{vfm} {head}: {compared.partition(': ')[2]} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
