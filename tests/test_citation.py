from pathlib import Path

import yaml

from vfm_ss.version import __version__

ROOT = Path(__file__).parents[1]


def test_citation_and_package_state_the_same():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["references"][0]["url"] in (ROOT / "README.md").read_text(encoding="utf-8")
