"""Fractions of a training set, as configs, names and records write them. Standard library only."""

from fractions import Fraction

_MOST = 10**6  # of a denominator


def parse_fraction(value: object) -> Fraction:
    """Read a fraction above 0, at most 1: ``'1/16'``, ``0.0625`` or ``1``.

    Raises:
        ValueError: If it is none.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        fraction = Fraction(value).limit_denominator(_MOST)
    except (ArithmeticError, TypeError, ValueError):
        fraction = Fraction(0)
    if not 0 < fraction <= 1:
        raise ValueError(
            f"a fraction of the training set is above 0 and at most 1, for example 1/16, not "
            f"{value!r}"
        )
    return fraction


def fraction_name(fraction: Fraction) -> str:
    """Write a fraction as names of configs do: ``f16`` for 1/16, ``f3of4`` for 3/4."""
    of = "" if fraction.numerator == 1 else f"{fraction.numerator}of"
    return f"f{of}{fraction.denominator}"


def normal_fraction(found: dict, dataset: str) -> None:
    """Write the fraction of a flattened config in one way, in place.

    Args:
        found: Values by their dotted names, see `identity.flatten`.
        dataset: Dotted name of the data set.
    """
    fraction, seed = (found.pop(f"{dataset}.{name}", None) for name in ("fraction", "subset_seed"))
    fraction, seed = parse_fraction(1 if fraction is None else fraction), seed or 0
    if fraction != 1:
        found[f"{dataset}.fraction"], found[f"{dataset}.subset_seed"] = str(fraction), seed
