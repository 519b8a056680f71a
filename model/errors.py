"""Every error that a user can cause.

MicroStepError
 +-- ModelError          a model cannot be found, read or used
 |    +-- ModelNotFound  no catalog entry, hub repository or folder of that name can be had
 |    +-- ModelBroken    it is there, but its files cannot be read
 |    +-- LicenceNeeded  its terms must be accepted first
 |    +-- NumericalError its numbers are NaN or infinite, so that nothing can be said
 +-- TextError           a text cannot be read or scored
 +-- TooLarge            more memory, disk or context than there is
 +-- ExportError         a file cannot be written

A message says what was given, what was expected and what to do. The command line prints it as one line, the app
shows it in place; neither shows a traceback.
"""

from __future__ import annotations


class MicroStepError(Exception):
    """Base of the project's errors."""


class ModelError(MicroStepError):
    """A model cannot be found, read or used."""


class ModelNotFound(ModelError):
    """No catalog entry, hub repository or local folder of that name can be had."""


class ModelBroken(ModelError):
    """The model's files are there but cannot be read."""


class LicenceNeeded(ModelError):
    """The model's terms must be accepted before it is fetched."""


class NumericalError(ModelError):
    """The model's numbers are NaN or infinite, so that no score, token or loss can be made of them."""

    row: int | None = None  # of a batch, which text it was


class TextError(MicroStepError):
    """A text cannot be read or scored."""


class TooLarge(MicroStepError):
    """The request needs more memory, disk or context than there is."""


class ExportError(MicroStepError):
    """A figure or table cannot be written."""
