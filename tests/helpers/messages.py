"""Comparing messages by the facts that they name, so that their wording can improve."""

import re


def mentions(message: str, *facts: object) -> bool:
    """Return whether a message names all facts, in this order: keys, files, options, whole numbers.

    A fact is not part of a longer word or number; lines may be broken between any two words.
    """
    patterns = (rf"(?<!\w)(?<!\d\.){re.escape(str(fact))}(?!\w|\.\d)" for fact in facts)
    return re.search(".*".join(patterns), " ".join(message.split())) is not None
