"""Errors that the command line tells apart."""


class UsageError(ValueError):
    """Wrong arguments, or nothing to do with them; a command exits with 2."""
