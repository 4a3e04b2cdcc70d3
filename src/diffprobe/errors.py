"""The one exception of this package that is meant for people: it says what was wrong, where, and what to do."""


class UserError(Exception):
    """Bad input, printed as one line with exit code 1; every message names the offending value."""


def one_line(error: BaseException) -> str:
    """What an error of another library says, short enough to stand within a message; its kind if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
