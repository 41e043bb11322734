"""The option --shard: which part of a manifest one of several processes works on."""

from typing import TYPE_CHECKING, Annotated

from featurestore.errors import ConfigError
from featurestore.terminal import say, system

if TYPE_CHECKING:
    from featurestore.featurize.sharding import Shard

ShardOption = Annotated[str | None, system("Only part I of N, as 2/8; auto: as Slurm or torchrun number tasks.")]


def part_to_do(shard: str | None, verb: str) -> "Shard | None":
    """Return the part that --shard names; None: the whole manifest.

    ConfigError where torchrun or srun started several tasks without --shard: each would `verb` everything.
    """
    from featurestore.featurize.sharding import Shard
    from featurestore.runtime.launched import task_of_launcher

    launched = task_of_launcher()
    if shard is None and launched is not None:
        raise ConfigError(
            f"{launched.launcher} started {launched.count} tasks, and each would {verb} the whole manifest: give "
            "--shard auto, or start one."
        )
    if shard != "auto":
        return None if shard is None else Shard.parse(shard)
    part, launcher = Shard.of_task()
    say(f"part {part}, as {launcher} numbers its tasks")
    return part
