from fractions import Fraction

import pytest

from vfm_ss.protocol.fractions import fraction_name, parse_fraction
from vfm_ss.protocol.identity import config_hash, identity


@pytest.mark.parametrize(
    ("value", "expected", "name"),
    [("1/16", (1, 16), "f16"), (0.0625, (1, 16), "f16"), (1 / 3, (1, 3), "f3"),
     (0.1, (1, 10), "f10"), ("0.75", (3, 4), "f3of4"), (1, (1, 1), "f1")],
)  # fmt: skip
def test_one_fraction_in_all_its_spellings(value, expected, name):
    fraction = parse_fraction(value)
    assert fraction == Fraction(*expected)
    assert fraction_name(fraction) == name


@pytest.mark.parametrize("value", [0, -1, "17/16", 16, "a", None, True, "1/0", float("nan"), [1]])
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match=r"above 0 and at most 1, for example 1/16, not "):
        parse_fraction(value)


def test_a_run_s_identity_knows_the_fraction_however_it_is_written():
    def of(**dataset):
        cfg = {"train_dataloader": {"dataset": {"type": "A", **dataset}}}
        return config_hash(identity(cfg))

    assert of() == of(fraction=1) == of(fraction="1/1", subset_seed=3) == of(fraction=None)
    assert of(fraction="1/16") == of(fraction=0.0625) == of(fraction=0.0625, subset_seed=0)
    other = {of(fraction="1/16"), of(fraction="1/4"), of(fraction=0.25, subset_seed=1)}
    assert len({of(), *other}) == 4
    with pytest.raises(ValueError, match="not 0"):
        of(fraction=0)
