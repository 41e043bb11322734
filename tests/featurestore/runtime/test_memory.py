"""The memory that a process may fill is the least of the system's and of its cgroups' limits."""

from pathlib import Path

from featurestore.runtime.memory import available_bytes


def system(root: Path, groups: str, **limits: str) -> Path:
    for name, text in {
        "proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8 kB\n",
        "proc/self/cgroup": groups,
        **limits,
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_without_a_limit_it_is_what_the_system_has(tmp_path: Path) -> None:
    limits = {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712"}
    assert available_bytes(system(tmp_path, "5:memory:/job\n0::/\n", **limits)) == 8192


def test_a_limit_of_version_1_counts(tmp_path: Path) -> None:
    limits = {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "5000"}
    assert available_bytes(system(tmp_path, "5:cpu,memory:/job\n", **limits)) == 5000


def test_a_limit_of_version_2_above_the_process_counts(tmp_path: Path) -> None:
    limits = {"sys/fs/cgroup/slurm/job/memory.max": "max\n", "sys/fs/cgroup/slurm/memory.max": "4000\n"}
    assert available_bytes(system(tmp_path, "0::/slurm/job\n", **limits)) == 4000


def test_a_container_that_sees_the_outer_path_finds_its_own_limit(tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path, "0::/outer/pod\n", **{"sys/fs/cgroup/memory.max": "3000"})) == 3000


def test_a_system_that_reports_nothing_has_no_number(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
