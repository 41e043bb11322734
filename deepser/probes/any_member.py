"""A member whatever made it: networks of `medusa fit-deepser`, or a probe."""

from pathlib import Path

from deepser.members.member import Member
from deepser.probes.member import ProbeMember, is_probe

AnyMember = Member | ProbeMember


def load_member(directory: Path | str) -> AnyMember:
    """Read a run directory of `medusa fit-deepser` or `medusa probe`; ConfigError says what is missing or damaged."""
    return ProbeMember.load(directory) if is_probe(directory) else Member.load(directory)
