"""The one exception of this package that is meant for people: it says what was wrong, where, and what to do."""


class UserError(Exception):
    """Bad input. The doors print it as one line and exit with code 1; every message names the offending value."""
