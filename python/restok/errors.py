"""What can go wrong. Every message names the file or the setting, what was found, and what was expected."""


class RestokError(Exception):
    """Any error of this package.

    Made from one text, so that it crosses the border of a process as it is: torch rebuilds an error of a worker from its text.
    """


class OutputError(RestokError):
    """An output, or a file of one, is not what it should be: missing, unfinished, damaged, or newer than this package."""


class SettingsError(RestokError, ValueError):
    """An argument cannot be, or contradicts another."""


class ProgramError(RestokError):
    """The program `restok` is not there, or ended with an error."""
