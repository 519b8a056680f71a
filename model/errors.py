"""Every error that a user can cause.

MicroStepError
 +-- ModelError          a model cannot be found, read or used
 |    +-- ModelNotFound  no catalog entry, hub repository or folder of that name exists
 |    +-- ModelBroken    the model's files exist but cannot be read
 |    +-- LicenceNeeded  the model's terms must be accepted first
 |    +-- NumericalError the model's numbers are NaN or infinite
 +-- TextError           a text cannot be read or scored
 +-- TooLarge            a request needs more memory, disk or context than is available
 +-- ExportError         a file cannot be written

A message says what was given, what was expected and what to do. The command line prints it as one line and the app
shows it in place; neither shows a traceback.
"""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class MicroStepError(Exception):
    """Base of the project's errors."""


class ModelError(MicroStepError):
    """A model cannot be found, read or used."""


class ModelNotFound(ModelError):
    """No catalog entry, hub repository or local folder of that name exists."""


class ModelBroken(ModelError):
    """The model's files exist but cannot be read."""


class LicenceNeeded(ModelError):
    """The model's terms must be accepted before it is fetched."""


class NumericalError(ModelError):
    """The model's numbers are NaN or infinite, so no score, token or loss can be computed from them."""

    row: int | None = None  # index of the text in its batch


class TextError(MicroStepError):
    """A text cannot be read or scored."""


class TooLarge(MicroStepError):
    """The request needs more memory, disk or context than is available."""


class ExportError(MicroStepError):
    """A figure or table cannot be written."""
