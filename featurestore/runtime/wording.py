"""Sizes, times and lists of names as people write and read them."""

from collections.abc import Sequence


def format_bytes(n: float) -> str:
    """Return a number of bytes with a decimal unit: "12 B", "3.4 kB", "1.20 TB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.2f} TB"


def format_seconds(seconds: float) -> str:
    """Return a time in its natural unit: "40 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: "1 speaker", "1,200 speakers"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def first_names(names: Sequence[str], limit: int) -> str:
    """Return the first names, comma-separated, and how many more there are: "a, b and 12 more"."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def silent_clips(names: Sequence[str], limit: int = 20) -> str:
    """Return how many clips have samples of one value alone, and the first of them."""
    return f"{len(names):,} silent, all samples of one value: {first_names(names, limit)}"


def special_texts(texts: Sequence[tuple[str, str]], limit: int = 5) -> str:
    """Return how many texts spell a special token, of (key, token) each, and the first of them."""
    first = ", ".join(f"{token} in {key}" for key, token in texts[:limit])
    more = f" and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return (
        f"{counted(len(texts), 'text')} with a special token of the tokenizer, which is read as such and not as "
        f"characters: {first}{more}"
    )


def split_names(text: str) -> list[str]:
    """Return the names of a comma-separated list, without blanks around them and without empty ones."""
    return [name.strip() for name in text.split(",") if name.strip()]
