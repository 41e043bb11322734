"""How much memory this process may fill, the files that the kernel keeps for it included."""

from pathlib import Path

# Version 1 and version 2 of cgroups: the controllers' name in /proc/self/cgroup, where they are mounted, the limit.
_HIERARCHIES = (("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("", "sys/fs/cgroup", "memory.max"))


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the least of the memory that is available and of the limits of this process's cgroups, in bytes.

    root: where `proc` and `sys` are mounted. None where the system reports neither, as outside Linux.
    """
    limits = [n for n in (_of_system(root), *_limits(root)) if n is not None]
    return min(limits, default=None)


def _of_system(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _limits(root: Path) -> list[int]:
    """Return the limits of the process's memory cgroup and of those above it."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    limits = []
    for controller, mount, name in _HIERARCHIES:
        for _, controllers, path in (group for group in groups if len(group) == 3):
            if controller in controllers.split(","):
                cgroup = root / mount / path.strip("/")
                # A container may see the outer path, which isn't there, and its own group at the root of the mount.
                within = [cgroup, *cgroup.parents]
                limits += [_limit(group / name) for group in within[: within.index(root / mount) + 1]]
    return [n for n in limits if n is not None]


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max"
