"""The checks of tools/fuzz/random_inputs on a few inputs: they accept some and refuse others."""

import random
import sys
from pathlib import Path

import pytest

from vfm_ss.cli.call import foreseen

sys.path.append(str(Path(__file__).parents[2] / "tools" / "fuzz"))
from input_targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_taken_for_what_they_are_or_refused_in_one_line(name, tmp_path):
    target, accepted = TARGETS[name](), 0
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            accepted += target(random.Random(f"0 {number}"), folder)
        except Exception as error:
            if foreseen(error) is None:
                raise
    assert accepted == 60 if name == "configs" else 2 < accepted < 40
