"""The product of factors: which cells, their names, their configs, and what is refused."""

from fractions import Fraction
from pathlib import Path

import pytest
from mmengine.config import Config

from vfm_ss.errors import UsageError
from vfm_ss.models.backbones.sam import PRETRAINED_GRID, PRETRAINED_WINDOW, scaled_window
from vfm_ss.protocol.identity import identity
from vfm_ss.protocol.settings import DATA, DECODERS, SETTINGS, config_name, parse_config_name
from vfm_ss.protocol.vfms import FAMILIES, SIZES, VFMS
from vfm_ss.sweep.cells import Cell, Model, config_text, timm_model
from vfm_ss.sweep.factors import TOKENS, of_factors, of_settings
from vfm_ss.sweep.plan import expand, missing_configs, write_configs

LEAVES = Path(__file__).parents[2] / "configs" / "vfm"


def names(product):
    return [cell.name for cell in product.cells]


def plain(value):
    """Return a config without the scope that inheriting by package name notes in it."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "_scope_"}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


class TestProduct:
    def test_the_paper_s_eight_are_points_of_it(self):
        product = of_factors(
            ["dinov2"],
            dict(sizes=["b", "l"], patches=["16", "8"], decoders=["linear", "probe", "mask2former"],
                 data=["all"]),
        )  # fmt: skip
        found = {cell.setting: cell for cell in product.cells}
        assert len(product.cells) == len(found) == 2 * 2 * 3 * 4
        assert set(SETTINGS) <= set(found)
        for name in SETTINGS:
            assert found[name].leaf == of_settings(["dinov2"], [name]).cells[0].leaf
            assert found[name].leaf.samefile(LEAVES / f"{found[name].name}.py")
        others = [cell for name, cell in found.items() if name not in SETTINGS]
        assert all(cell.leaf is None and cell.setting.startswith(("b", "l")) for cell in others)

    def test_names_follow_the_grammar_and_come_back(self):
        product = of_factors(
            ["mae"], dict(decoders=["all"], fractions=["1", "1/16", "3/4"], steps=["40k", "300"])
        )
        assert len(set(names(product))) == len(product.cells) == len(DECODERS) * 3 * 2
        assert "mae_b16_mask2former-probe_ade20k_f16_300steps" in names(product)
        for cell in product.cells:
            parts = parse_config_name(cell.name)
            assert (parts.decoder, parts.fraction) == (cell.decoder, cell.fraction)
            assert (parts.steps or 40_000) == cell.length
            assert parts.setting == cell.setting

    def test_a_model_of_timm_comes_in_its_own_size(self):
        timm = "timm:vit_large_patch14_dinov2.lvd142m"
        product = of_factors(["mae", timm], dict(sizes=["b", "l"]))
        assert names(product) == [
            "mae_b16_linear_ade20k",
            "mae_l16_linear_ade20k",
            "vit_large_patch14_dinov2.lvd142m_l16_linear_ade20k",
        ]
        assert product.left_out == ("vit_large_patch14_dinov2.lvd142m is not of size b",)
        alone = of_factors([timm, "mae"], dict(data=["voc2012"]))
        assert names(alone) == [
            "mae_b16_linear_voc2012", "vit_large_patch14_dinov2.lvd142m_l16_linear_voc2012"
        ]  # fmt: skip
        assert alone.left_out == ()
        assert of_factors([timm], dict(data=["ade20k"])).cells[0].setting == "large"

    def test_what_a_family_lacks_is_named_what_was_stated_is_refused(self):
        product = of_factors(["next"], dict(sizes=["l"]))
        assert "eupe is not of size l" in product.left_out
        with pytest.raises(ValueError, match=r"arch of EUPE must be .*: choose --sizes s,b"):
            of_factors(["eupe"], dict(sizes=["l"]))

    def test_what_a_family_lacks_at_the_usual_size_is_named_too(self):
        product = of_factors(["next"], dict(decoders=["linear"]))
        assert product.left_out == ("aimv2 is not of size b",)
        assert not any(name.startswith("aimv2") for name in names(product))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (dict(sizes=["x"]), "--sizes: unknown 'x', expected some of s, b, l, or all"),
            (dict(patches=["12"]), "--patches: unknown '12', expected some of 8, 14, 16, 32, or"),
            (dict(decoders=["upernet"]), "unknown 'upernet', expected some of linear, probe, mask"),
            (dict(data=["coco"]), "unknown data: 'coco', expected one of ade20k, voc2012"),
            (dict(fractions=["16"]), "above 0 and at most 1, for example 1/16, not '16'"),
            (dict(steps=["10K"]), "--steps takes numbers as 10000 or 10k, got '10K'"),
        ],
    )
    def test_unknown_values_list_the_known_ones(self, given, message):
        with pytest.raises(ValueError, match=message):
            of_factors(["mae"], given)

    def test_an_unknown_vfm_lists_the_known_ones(self):
        with pytest.raises(ValueError, match="unknown VFM: 'dino', expected one of eva02"):
            of_factors(["dino"], {})

    def test_a_timm_name_without_a_size_is_refused(self):
        with pytest.raises(ValueError, match="timm:vit_so400m_patch14 does not say its size"):
            of_factors(["timm:vit_so400m_patch14"], dict(data=["ade20k"]))


class TestImpossible:
    def test_patches_that_do_not_divide_the_crop(self):
        with pytest.raises(
            ValueError, match=r"patch 14 does not divide the crop 512x512 of ade20k; .* 518 or 504"
        ):
            of_factors(["dinov2"], dict(patches=["16", "14"]))
        assert of_factors(["dinov2"], dict(patches=["14"]), img_size=(518, 518)).cells
        with pytest.raises(ValueError, match="the crop 518x518"):
            of_factors(["dinov2"], dict(patches=["16"]), img_size=(518, 518))

    @pytest.mark.parametrize("patch", [8, 16, 32])
    @pytest.mark.parametrize("side", [256, 384, 512, 1024])
    def test_sam_s_windows_as_the_backbone_refuses_them(self, patch, side):
        def refused(build):
            try:
                build()
            except ValueError as error:
                return str(error)
            return None

        ours = refused(
            lambda: of_factors(["sam"], dict(patches=[str(patch)]), img_size=(side, side))
        )
        backbone = refused(lambda: scaled_window((side // patch, side // patch), patch))
        assert (ours is None) == (backbone is None)
        if ours:
            step = TOKENS["sam"] * patch
            assert f"multiple of {step}" in backbone
            assert str(max(step, round(side / step) * step)) in ours
        assert PRETRAINED_GRID // TOKENS["sam"] * 7 == PRETRAINED_WINDOW


class TestConfigs:
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_a_cell_s_config_is_the_leaf_that_was_written_by_hand(self, setting, tmp_path):
        """The configs of DINOv2, parsed; those of the others differ from them by one word."""

        def written(vfm):
            parts = parse_config_name(config_name(vfm, setting))
            data = DATA[parts.data]
            cell = Cell(Model(parts.vfm), parts.size, parts.patch, parts.decoder, data)
            assert cell.name == config_name(vfm, setting)
            leaf = (LEAVES / f"{cell.name}.py").read_text()
            return [
                text.replace(cell.name, "NAME").replace(f'"{VFMS[vfm].name}"', "TYPE")
                for text in (config_text(cell), leaf)
            ]

        found = [written(vfm) for vfm in FAMILIES["paper"]]
        assert len(found) == 10
        assert all(texts == found[0] for texts in found)
        name = config_name("dinov2", setting)
        path = tmp_path / f"{name}.py"
        path.write_text(found[0][0].replace("TYPE", '"DINOv2"'))
        assert plain(Config.fromfile(path).to_dict()) == plain(
            Config.fromfile(LEAVES / f"{name}.py").to_dict()
        )

    def test_what_a_cell_changes_and_nothing_else(self, tmp_path):
        def of(**changes):
            fields = dict(
                model=Model("mae"), size="b", patch=16, decoder="linear", data=DATA["voc2012"]
            )
            cell = Cell(**{**fields, **changes})
            path = tmp_path / f"{cell.name}.py"
            path.write_text(config_text(cell))
            cfg = Config.fromfile(path)
            return cfg, identity(cfg)

        plain_cfg, base = of()

        def changed(**changes):
            other = of(**changes)[1]
            return {k: v for k, v in other.items() if v != base.get(k)}

        assert changed(fraction=Fraction(1, 16)) == {
            "train_dataloader.dataset.fraction": "1/16",
            "train_dataloader.dataset.subset_seed": 0,
        }
        assert changed(steps=300) == {"train_cfg.max_iters": 300}
        assert changed(steps=40_000) == {"train_cfg.max_iters": 40_000}
        assert changed(size="l", patch=8) == {
            "model.backbone.arch": "large",
            "model.backbone.patch_size": 8,
        }
        assert changed(decoder="mask2former-probe") == {
            "model.backbone.frozen": True,
            "model.decode_head.type": "SingleScaleMask2FormerHead",
        }
        assert changed(decoder="eomt") == {
            "model.decode_head.type": "EoMTHead",
        }
        recipe = {
            "model.backbone.frozen": True,
            "model.decode_head.type": "BatchNormLinearHead",
            "model.test_cfg.stride": 2 / 3,
            "optim_wrapper.optimizer.lr": 1e-3,
            "optim_wrapper.optimizer.weight_decay": 1e-3,
            "optim_wrapper.precision": "fp32",
            "param_scheduler.type": "WarmupOneCycleLR",
            "param_scheduler.warmup": 750,
            "param_scheduler.warmup_ratio": 1e-6,
            "train_dataloader.dataset.pipeline.0.distortion.hue_delta": 90,
            "train_dataloader.dataset.pipeline.0.max_class_share": 0.75,
            "train_dataloader.dataset.pipeline.0.pad_value": "mean",
            "train_dataloader.dataset.pipeline.0.scale_relative_to": "cover",
        }
        assert changed(decoder="dinov3-probe") == recipe
        forty = {"train_cfg.max_iters": 40_000, "param_scheduler.warmup": 1500}
        assert changed(decoder="dinov3-probe", steps=40_000) == recipe | forty
        sampled = changed(decoder="dinov3-probe", fraction=Fraction(1, 16), steps=300)
        assert sampled["param_scheduler.warmup"] == 11
        assert sampled["train_dataloader.dataset.fraction"] == "1/16"
        assert sampled["train_dataloader.dataset.pipeline.0.scale_relative_to"] == "cover"
        timm = of(model=timm_model("vit_base_patch16_dinov3.lvd1689m"))[0]
        assert timm.model.backbone == dict(
            type="TimmViT", model_name="vit_base_patch16_dinov3.lvd1689m", pretrained=True,
            patch_size=16, img_size=(512, 512),
        )  # fmt: skip
        assert plain(timm.default_hooks.record) == dict(type="RecordHook", size="b")
        short = of(steps=300)[0]
        assert (short.train_cfg.val_interval, short.default_hooks.checkpoint.interval) == (30, 30)
        assert plain_cfg.train_cfg.max_iters == 20_000

    def test_they_are_written_once_and_nothing_else_is_trained(self, tmp_path):
        product = of_factors(["mae"], dict(fractions=["1", "1/16"]))
        runs = expand(tmp_path, product, seeds=(0, 1))
        assert [run.text is None for run in runs] == [True, False] * 2
        path = tmp_path / "mae_b16_linear_ade20k_f16" / "mae_b16_linear_ade20k_f16.py"
        assert missing_configs(runs) == {path: runs[1].text}
        assert not path.parent.exists()
        write_configs(runs)
        assert path.read_text() == runs[1].text == runs[3].text
        assert missing_configs(runs) == {}
        assert runs[1].work_dir == path.parent / "seed0"
        path.write_text(path.read_text() + "import os\n")
        for use in (missing_configs, write_configs):
            with pytest.raises(UsageError, match=r"f16\.py is not the config that this sweep"):
                use(runs)
        path.unlink()
        path.symlink_to("/dev/null")
        with pytest.raises(UsageError, match="is not the config"):
            write_configs(runs)

    def test_sizes_are_those_of_the_table(self):
        for name in VFMS:
            cells = of_factors([name], dict(sizes=[arch[0] for arch in VFMS[name].archs])).cells
            assert [SIZES[cell.size] for cell in cells] == list(VFMS[name].archs)
