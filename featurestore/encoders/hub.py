"""Weights from the hub: the local cache first, then a download that is checked against the disk.

A transfer that breaks off goes on after the last 10 MB that were written. After an interrupted run, files that are
whole are kept; of the one that was on its way huggingface_hub 2.4 keeps nothing, so that it is fetched anew.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Mapping
from pathlib import Path

from featurestore.errors import EncoderError
from featurestore.runtime.json_text import read_json
from featurestore.runtime.wording import format_bytes

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "spm.model",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
CONFIG_FILES = ("config.json", "preprocessor_config.json", "processor_config.json")
POOLING_FILES = ("modules.json", "sentence_bert_config.json", "*_Pooling/config.json", "*_Dense/*")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
TIMEOUT_S = 10


def weight_files(directory: Path) -> list[Path]:
    """Return the files the parameters are read from: model*.safetensors, or pytorch_model*.bin where there are none."""
    return sorted(directory.glob("model*.safetensors")) or sorted(directory.glob("pytorch_model*.bin"))


def from_hub(name: str, hub_id: str) -> Path:
    """Return the cached snapshot of a repository, downloaded first where it is not whole.

    EncoderError, in one line, where the disk has no room, the repository can't be reached or asks for a login: it says
    how to fetch the weights on another machine.
    """
    import huggingface_hub
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    # Not snapshot_download: that one misses files of the repository which no encoder reads.
    config = huggingface_hub.try_to_load_from_cache(hub_id, "config.json")
    if isinstance(config, str) and _whole(Path(config).parent):
        return Path(config).parent
    tried = f"the hub cache {cache} ({'incomplete' if isinstance(config, str) else 'not there'})"
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    else:
        try:
            return _downloaded(name, hub_id, cache)
        except EncoderError:
            raise
        except Exception as error:  # network and hub errors of many kinds
            reason = _reason(error, hub_id)
    raise EncoderError(
        f"{name}: weights not found; tried {tried} and the hub ({hub_id}: {reason}). With no network, run "
        f"`hf download {hub_id} --local-dir DIR` where there is one, copy the directory here and pass --weights DIR."
    )


def _downloaded(name: str, hub_id: str, cache: Path) -> Path:
    """Download what is missing, weights last, so that a snapshot with all its weights has all the rest."""
    import huggingface_hub

    # Not list_repo_files: with no network that one retries for 23 s.
    info = huggingface_hub.HfApi().model_info(hub_id, files_metadata=True, timeout=TIMEOUT_S)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    small, weights = _files_to_fetch(sizes)
    if not weights:
        raise EncoderError(
            f"{name}: the hub's {hub_id} has neither model*.safetensors nor pytorch_model*.bin; expected one of them."
        )
    missing = [
        file
        for file in (*small, *weights)
        if not isinstance(huggingface_hub.try_to_load_from_cache(hub_id, file, revision=info.sha), str)
    ]
    needed, free = sum(sizes[file] for file in missing), _free_bytes(cache)
    if needed > free:
        raise EncoderError(
            f"{name}: its files take {format_bytes(needed)}, and {cache} has {format_bytes(free)} free. Make room, or "
            "set HF_HOME to a directory on a larger disk."
        )
    for files in (small, weights):
        directory = huggingface_hub.snapshot_download(hub_id, revision=info.sha, allow_patterns=list(files))
    _name_main(cache, hub_id, str(info.sha))
    return Path(directory)


def _name_main(cache: Path, hub_id: str, commit: str) -> None:
    """Record which snapshot is `main`, by which it is found without a network."""
    reference = cache / f"models--{hub_id.replace('/', '--')}" / "refs" / "main"
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit, encoding="utf-8")


def _files_to_fetch(sizes: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Return the small files and the weights of a repository that are read: safetensors where it has them."""
    patterns = (*CONFIG_FILES, *TOKENIZER_FILES, *POOLING_FILES)
    small = [file for file in sizes if any(fnmatch.fnmatch(file, pattern) for pattern in patterns)]
    safe = [file for file in sizes if fnmatch.fnmatch(file, "model*.safetensors")]
    kind = "model*.safetensors*" if safe else "pytorch_model*.bin*"
    files = [file for file in sizes if fnmatch.fnmatch(file, kind)]
    return small + [file for file in files if file in INDEXES], [file for file in files if file not in INDEXES]


def _whole(directory: Path) -> bool:
    """Return whether a snapshot has its configuration and all of its weights, every shard of them."""
    if not (directory / "config.json").is_file() or not weight_files(directory):
        return False
    for index in (directory / name for name in INDEXES):
        suffix = ".safetensors" if "safetensors" in index.name else ".bin"
        if not index.is_file() or weight_files(directory)[0].suffix != suffix:
            continue
        try:
            shards = set(read_json(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        if not all((directory / shard).is_file() for shard in shards):
            return False
    return True


def _free_bytes(cache: Path) -> int:
    place = next(each for each in (cache, *cache.absolute().parents) if each.is_dir())
    return shutil.disk_usage(place).free


def _reason(error: Exception, hub_id: str) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return f"accept its terms at https://huggingface.co/{hub_id} and run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one: run `hf auth login`"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
