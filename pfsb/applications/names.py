"""Rules for the names that an application gives: to itself, its verbs, its refusals and the fields of its answers.

The line protocol prints these names as they are, between spaces. A space or a line end in a name would end the word, or
the line, and the client would take the rest for something else.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

APPLICATION_CHARACTERS_MAX: Final = 64
"""Maximum length of the name of an application."""
FIELD_NAMES_KNOWN: Final = 1_024
"""Maximum number of names of fields for which the result of `is_field_name` is kept, so that it need not be computed
again."""

_VERB: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")


def is_application_name(name: object) -> bool:
    """Whether an application may have this name: letters, digits and `_`, as the setting `apps` takes it."""
    return isinstance(name, str) and name.isidentifier() and len(name) <= APPLICATION_CHARACTERS_MAX


def is_verb(verb: object) -> bool:
    """Whether clients can write this verb: 1 to 32 capital letters, digits, `_` and `-`, the first one a letter."""
    return isinstance(verb, str) and _VERB.fullmatch(verb) is not None


def is_word(text: object) -> bool:
    """Whether a text can be printed without quotes, as the code of a refusal is: no spaces, no control characters."""
    return isinstance(text, str) and text.isprintable() and " " not in text


@lru_cache(FIELD_NAMES_KNOWN)
def is_field_name(name: object) -> bool:
    """Whether a field may have this name: a word that is not empty, and without `=` and `"`, which end the name."""
    return is_word(name) and name != "" and not {"=", '"'} & set(str(name))
