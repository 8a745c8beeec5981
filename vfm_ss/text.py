"""How text reads in a terminal and in a spreadsheet; standard library only."""

import re

#: Stands for a value that is not known.
GAP = "–"


def printable(words: str) -> str:
    """Escape what could steer a terminal or break a line, as file names may hold it."""
    if words.isprintable():  # nearly always
        return words
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def printable_lines(text: str) -> str:
    """Do the same for every line of a text."""
    return "".join(f"{printable(line)}\n" for line in text.splitlines())


# Spreadsheets compute what begins so, at the start of a cell or, where the semicolon separates
# columns, after one. An apostrophe in front makes it text.
_FORMULA = re.compile(r"(?:^|(?<=[;\t\r\n]))('* *[=+\-@\t\r])")
_ESCAPED = re.compile(r"(?:^|(?<=[;\t\r\n]))'('* *[=+\-@\t\r])")


def to_cell(words: str) -> str:
    """Write words so that no spreadsheet takes them for a formula; `from_cell` reads them."""
    return _FORMULA.sub(r"'\1", words)


def from_cell(cell: str) -> str:
    """Read what `to_cell` has written; other words stay as they are."""
    return _ESCAPED.sub(r"\1", cell)
