"""The exception for mistakes of the user: it says what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input, printed as one line with exit code 1; every message names the offending value."""


class SharedError(UserError):
    """One that every process of a run finds alike, so that one of them prints it."""


def one_line(error: BaseException) -> str:
    """The message of an error of another library as one short line; its class if it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__
