"""How text reads in a terminal; standard library only."""

#: Stands for a value that is not known.
GAP = "–"


def printable(words: str) -> str:
    """Escape what could steer a terminal or break a line, as file names may hold it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
