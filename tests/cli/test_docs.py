"""Commands in the documentation have only options that exist; help names all of them alike."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from vfm_ss.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("projects/*/README.md")]
#: What tools of one name call; the two of Slurm and of torchrun have arguments before them.
TOOLS = {"rank": "rank", "sweep": "sweep", "check_data": "check-data"}
TOOLS |= {f"{start}{name}": name for start in ("", "dist_", "slurm_") for name in ("train", "test")}
_TOOL = rf"tools/({'|'.join(TOOLS)})\.(?:py|sh)"


def parsers(name):
    """Return the parser of a command and those of its own commands, by their names."""
    parser = importlib.import_module(f"vfm_ss.cli.{name.replace('-', '_')}").parser(
        f"vfm-ss {name}"
    )
    found = {name: parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {f"{name} {sub}": p for sub, p in action.choices.items()}
    return found


PARSERS = {key: parser for name in COMMANDS for key, parser in parsers(name).items()}


def commands(page):
    """Yield (command, words) of the command lines in a page, in blocks and between backticks."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    text = re.sub(_TOOL, lambda match: f"vfm-ss {TOOLS[match[1]]}", text)
    for line in re.findall(r"vfm-ss ((?:[a-z][a-z-]*)[^`\n]*)", text):
        words = shlex.split(line.partition("   #")[0].translate(str.maketrans("[]'", "   ")))
        name = " ".join(words[:2]) if " ".join(words[:2]) in PARSERS else words[0]
        if name in PARSERS:
            yield name, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_the_documentation_exist(page):
    for name, words in commands(page):
        known = {
            text for p in (name, name.split()[0]) for text in PARSERS[p]._option_string_actions
        }
        unknown = {word for word in words if word.startswith("--")} - known
        assert not unknown, f"vfm-ss {name} has no {unknown}"


def test_commands_are_found_in_the_documentation():
    found = [name for page in PAGES for name, _ in commands(page)]
    assert {name.split()[0] for name in found} == set(COMMANDS)
    assert len(found) > 60


@pytest.mark.parametrize("name", PARSERS)
def test_help_says_what_every_argument_is(name):
    for action in PARSERS[name]._actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        assert action.help, action
        if action.nargs != 0 and not action.choices:
            assert re.fullmatch(r"[A-Z_=]+", action.metavar or ""), action
