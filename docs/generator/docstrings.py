"""An extension of griffe, with which mkdocstrings reads the docstrings as the other pages do."""

from typing import Any

import griffe
from families import markdown


class Docstrings(griffe.Extension):
    """Turns each docstring into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Once, when the object is read."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
