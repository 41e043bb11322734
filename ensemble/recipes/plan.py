"""From a recipe to the commands that carry it out, what each reads and what it makes.

Nothing is known twice: an option of a recipe is the option of its command, and the command itself checks the value.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.evaluation.naming import PREFIX
from ensemble.recipes.arguments import arguments_of, check_arguments, find_command, is_argument, keys_of, path_options
from ensemble.recipes.members import KNOWN, of_recipe
from ensemble.recipes.recipe import Recipe
from featurestore.encoders.families import reads_text
from featurestore.errors import ConfigError
from featurestore.loaders.reference import FeatureRef
from featurestore.runtime.yaml_lines import Entry, unknown_key

# Options that say how to compute, not what: a run that was begun on one machine goes on where they differ.
MACHINE = ("device", "devices", "workers", "batch", "batch-s", "engine", "parts", "weights")
NEVER = ("dry-run", "check", "overwrite", "shard")  # contradict what a run is
SYSTEMS = "systems"  # of evaluate, the one key that is no option
TABLE, ONE_SYSTEM = ("output", "format", "common"), ("by", "calibration", "reliability")  # options of evaluate
COMPARISON = "comparison.json"  # what `compare` writes


@dataclass(frozen=True)
class Thing:
    """What a step reads or makes: a "manifest", "file", "tree" (any path), or a "set" of features in a store.

    Or the "audio" files of the manifest at `path`, by their sizes and times.
    """

    kind: str
    path: Path
    name: str = ""  # of the set
    manifest: Path | None = None  # whose utterances the set must hold

    def __str__(self) -> str:
        return f"the audio of {self.path.name}" if self.kind == "audio" else self.name or self.path.name


@dataclass(frozen=True)
class Step:
    """One command: its name in the plan, its `medusa` arguments, and what decides whether it is done.

    settings: those that decide the result, not how it is computed. always: it shows results, and is never skipped.
    """

    name: str
    arguments: tuple[str, ...]
    settings: tuple[str, ...]
    reads: tuple[Thing, ...]
    makes: tuple[Thing, ...]
    always: bool = False


@dataclass(frozen=True)
class Places:
    """Where a run keeps what it makes."""

    directory: Path
    store: Path

    @property
    def runs(self) -> Path:
        return self.directory / "runs"

    def step(self, name: str) -> Path:
        """Return the record of a step."""
        return self.directory / "steps" / f"{name.replace('/', '.')}.json"


def steps_of(recipe: Recipe, commands: Any, places: Places, device: str = "auto") -> list[Step]:
    """Return the steps of a recipe, in their order.

    commands: the `medusa` command itself, whose options its sections have.

    ConfigError names the line of an option that its command doesn't know or can't take, of a member that reads what
    nothing makes, and of a section that needs another.
    """
    return _Planner(recipe, commands, places, device).steps()


@dataclass(frozen=True)
class _Planner:
    recipe: Recipe
    commands: Any
    places: Places
    device: str

    def steps(self) -> list[Step]:
        if not self.recipe.mistakes and (self.recipe.manifest is None) == ("prepare" not in self.recipe.sections):
            raise ConfigError(f"{self.recipe.source.name}: expected either a prepare section or manifest: FILE.")
        steps: list[Step] = []
        mistakes = list(self.recipe.mistakes)
        for section, entries in self.recipe.sections.items():
            make = getattr(self, f"_{section}")
            for name, options in entries.items():
                try:
                    steps += make(name, options) if name else make(options)
                except ConfigError as error:
                    mistakes.append(str(error))
        if mistakes:
            raise ConfigError(" ".join(dict.fromkeys(mistakes)))
        return steps

    @property
    def manifest(self) -> Path:
        if self.recipe.manifest is not None and "split" not in self.recipe.sections:
            return Path(self.recipe.manifest.text)
        return self.places.directory / "manifest.csv"

    @property
    def unsplit(self) -> Path:
        """What `split` starts from."""
        if self.recipe.manifest is not None:
            return Path(self.recipe.manifest.text)
        return self.places.directory / "prepared.csv" if "split" in self.recipe.sections else self.manifest

    @property
    def transcripts(self) -> Path:
        return self.places.directory / "transcripts.csv"

    @property
    def fused(self) -> str:
        """The meta-classifier's name, or "" where the recipe has none."""
        options = self.recipe.sections.get("meta", {}).get("")
        return "" if options is None else options.value["name"].text if "name" in options.value else "meta"

    def posteriors(self, name: str) -> Thing:
        return Thing("set", self.places.store, PREFIX + name)

    def _prepare(self, options: Entry) -> list[Step]:
        entries = dict(options.value)
        if "corpus" not in entries:
            raise ConfigError(f"{options.place}: prepare needs corpus: NAME, as in `medusa prepare NAME`.")
        corpus = entries.pop("corpus")
        words = ("prepare", corpus.text)
        find_command(self.commands, words, corpus.place)
        return [self._step("prepare", words, Entry(entries, options.place), {"output": self.unsplit},
                           makes=(Thing("manifest", self.unsplit),))]  # fmt: skip

    def _split(self, options: Entry) -> list[Step]:
        set_here = {"manifest": self.unsplit, "output": self.manifest}
        return [self._step("split", ("split",), options, set_here, reads=(Thing("manifest", self.unsplit),),
                           makes=(Thing("manifest", self.manifest),))]  # fmt: skip

    def _transcribe(self, options: Entry) -> list[Step]:
        set_here = {"manifest": self.manifest, "output": self.transcripts}
        reads = (Thing("manifest", self.manifest), Thing("audio", self.manifest))
        return [self._step("transcribe", ("transcribe",), options, set_here, reads=reads,
                           makes=(Thing("file", self.transcripts),))]  # fmt: skip

    def _featurize(self, name: str, options: Entry) -> list[Step]:
        entries = dict(options.value)
        entries.setdefault("encoder", Entry(name, options.place))
        set_here: dict[str, Any] = {"name": name, "manifest": self.manifest, "store": self.places.store}
        reads = [Thing("manifest", self.manifest)]
        if self._reads_transcripts(entries):
            set_here["transcripts"] = self.transcripts
            reads.append(Thing("file", self.transcripts))
        else:
            reads.append(Thing("audio", self.manifest))
        if os.path.isdir(entries["encoder"].text):
            reads.append(Thing("tree", Path(entries["encoder"].text)))
        feature_set = Thing("set", self.places.store, name, self.manifest)
        step = self._step(
            f"featurize/{name}", ("featurize",), Entry(entries, options.place), set_here, tuple(reads), (feature_set,)
        )
        return [step]

    def _reads_transcripts(self, options: dict[str, Entry]) -> bool:
        """Return what the key `transcripts` says, else: is there a transcribe section, and does the encoder read text?

        ConfigError where there is one and it is unknown what the encoder reads.
        """
        transcribes = "transcribe" in self.recipe.sections
        transcripts = options.pop("transcripts", None)
        if transcripts is None:
            if not transcribes:
                return False
            encoder = options["encoder"]
            weights = Path(options["weights"].text) if "weights" in options else None
            reads = reads_text(encoder.text, weights)
            if reads is None:
                raise ConfigError(
                    f"{encoder.place}: the recipe transcribes, and whether {encoder.text} reads text is not known "
                    "before it is loaded; say transcripts: true or false beside it."
                )
            return reads
        if not isinstance(transcripts.value, bool) or (transcripts.value and not transcribes):
            raise ConfigError(
                f"{transcripts.place}: transcripts: true takes those of the transcribe section; else false."
            )
        return transcripts.value

    def _members(self, name: str, options: Entry) -> list[Step]:
        places = self.places
        set_here = {"name": name, "manifest": self.manifest, "store": places.store, "runs": places.runs}
        for key in ("seeds", "members"):
            if key in options.value:
                place = options.value[key].place
                raise ConfigError(
                    f"{place}: a member of a recipe is one; give {name} a seed, and others names of their own."
                )
        reads, mistakes = [Thing("manifest", self.manifest)], []
        for ref in options.value["features"].texts if "features" in options.value else ():
            source = FeatureRef.parse(ref).name
            if source not in self.recipe.sections.get("featurize", {}) and not _in_store(places.store, source):
                mistakes.append(
                    f"{options.value['features'].place}: member {name} reads {source!r}, which the featurize section "
                    f"does not make, and which is not in {places.store}."
                )
            reads.append(Thing("set", places.store, source, self.manifest))
        makes = (self.posteriors(name), Thing("file", places.runs / name / "config.json"))
        try:
            step = self._step(
                f"members/{name}", ("fit-deepser",), self._with_cv(options), set_here, tuple(reads), makes
            )
        except ConfigError as error:
            raise ConfigError(" ".join([*mistakes, str(error)])) from None
        if mistakes:
            raise ConfigError(" ".join(mistakes))
        try:
            settings = {key: options.value[key] for key in KNOWN if key in options.value}
            of_recipe(name, Entry(settings, options.place)).config()
        except ConfigError as error:
            raise ConfigError(f"{options.place}: member {name}: {error}") from None
        return [step]

    def _meta(self, options: Entry) -> list[Step]:
        with_members = self._with_members(options)
        with_members.value.setdefault("name", Entry(self.fused, options.place))
        set_here = {"manifest": self.manifest, "store": self.places.store, "runs": self.places.runs}
        reads = (
            Thing("manifest", self.manifest),
            *(self.posteriors(name) for name in with_members.value["members"].texts),
        )
        makes = (self.posteriors(self.fused), Thing("file", self.places.runs / self.fused / "report.json"))
        return [self._step("meta", ("fit-meta",), self._with_cv(with_members), set_here, reads, makes)]

    def _compare(self, options: Entry) -> list[Step]:
        with_members = self._with_members(options)
        set_here = {
            "manifest": self.manifest, "store": self.places.store, "json": self.places.directory / COMPARISON,
        }  # fmt: skip
        reads = (
            Thing("manifest", self.manifest),
            *(self.posteriors(name) for name in with_members.value["members"].texts),
        )
        return [self._step("compare", ("compare",), self._with_cv(with_members), set_here, reads, always=True)]

    def _evaluate(self, options: Entry) -> list[Step]:
        entries = dict(options.value)
        members = list(self.recipe.sections.get("members", {}))
        system_names = (
            self._made(entries.pop(SYSTEMS)) if SYSTEMS in entries else [self.fused] if self.fused else members
        )
        if "against" in entries and not Path(entries["against"].text).suffix:  # else a file of predictions
            self._made(entries["against"])
        of_table = {key: entries.pop(key) for key in TABLE if key in entries}
        steps = []
        for name in system_names:
            set_here: dict[str, Any] = {
                "names": name, "manifest": self.manifest, "store": self.places.store,
                "json": self.places.directory / f"scores-{name}.json",
                "confusion": self.places.directory / f"confusion-{name}.png",
            }  # fmt: skip
            reads = (Thing("manifest", self.manifest), self.posteriors(name))
            with_cv = self._with_cv(Entry(entries, options.place))
            steps.append(self._step(f"evaluate/{name}", ("evaluate",), with_cv, set_here, reads, always=True))
        if of_table:
            shared = {key: entry for key, entry in entries.items() if key not in ONE_SYSTEM}
            set_here = {"names": system_names, "manifest": self.manifest, "store": self.places.store}
            all_read = (Thing("manifest", self.manifest), *map(self.posteriors, system_names))
            with_cv = self._with_cv(Entry(shared | of_table, options.place))
            steps.append(self._step("evaluate/table", ("evaluate",), with_cv, set_here, all_read, always=True))
        return steps

    def _with_members(self, options: Entry) -> Entry:
        """Return the options with the recipe's members, where they name none."""
        entries = dict(options.value)
        members = (
            self._made(entries["members"]) if "members" in entries else list(self.recipe.sections.get("members", {}))
        )
        if not members:
            raise ConfigError(f"{options.place}: needs a members section, or members: [NAME, ...].")
        for k in entries["top"].texts if "top" in entries else ():
            if k.isdecimal() and int(k) > len(members):
                raise ConfigError(f"{entries['top'].place}: the top {k} can't be chosen of {len(members)} members.")
        return Entry(entries | {"members": Entry(members, options.place)}, options.place)

    def _made(self, names: Entry) -> list[str]:
        """Return the names of posteriors; ConfigError for one that no section makes and that is not in the store."""
        made = [*self.recipe.sections.get("members", {}), self.fused]
        for name in names.texts:
            if name not in made and not _in_store(self.places.store, PREFIX + name):
                raise ConfigError(
                    f"{names.place}: no section makes {name!r}, and it is not in {self.places.store}; they make "
                    f"{', '.join(filter(None, made)) or 'nothing'}."
                )
        return names.texts

    def _with_cv(self, options: Entry) -> Entry:
        """Return the options with the recipe's fold column, where they say nothing of folds themselves."""
        if self.recipe.cv is None or {"cv", "folds", "split", "train-on"} & set(options.value):
            return options
        return Entry({**options.value, "cv": self.recipe.cv}, options.place)

    def _refuse_keys(
        self, options: Entry, parameters: Mapping[str, Any], set_here: Mapping[str, Any], words: tuple[str, ...]
    ) -> None:
        """Raise ConfigError with every key that the command has no option for, or that is set by the run."""
        mistakes = []
        for key, entry in options.value.items():
            if key in set_here or key in NEVER:
                mistakes.append(f"{entry.place}: {key} is set by the run itself; leave it out.")
            elif key not in parameters:
                free = [each for each in parameters if each not in set_here and each not in NEVER]
                mistakes.append(str(unknown_key(entry.place, key, free, f"option of medusa {' '.join(words)}")))
        if mistakes:
            raise ConfigError(" ".join(mistakes))

    def _step(
        self,
        name: str,
        words: tuple[str, ...],
        options: Entry,
        set_here: Mapping[str, Any],
        reads: tuple[Thing, ...] = (),
        makes: tuple[Thing, ...] = (),
        always: bool = False,
    ) -> Step:
        """Return a step from the options that the recipe gives and those that the run itself sets."""
        command = find_command(self.commands, words, options.place)
        parameters = {key: parameter for parameter in command.params for key in keys_of(parameter)}
        paths = path_options(command)
        arguments, settings, sources = [], [], list(reads)
        self._refuse_keys(options, parameters, set_here, words)
        for key, entry in options.value.items():
            arguments += arguments_of(parameters[key], key, entry)
            value = ",".join(entry.value) if isinstance(entry.value, list) else str(entry.value)
            if parameters[key].name in paths:
                sources.append(Thing("tree", Path(value)))
                value = os.path.abspath(value)
            elif is_argument(parameters[key]):
                sources += [Thing("tree", path) for path in map(_file_of, entry.texts) if path is not None]
            if key not in MACHINE:
                settings.append(f"{key}={value}")
        if "device" in parameters and "device" not in options.value and self.device != "auto":
            arguments += ["--device", self.device]
        for key, value in set_here.items():
            texts = [str(each) for each in (value if isinstance(value, list) else [value])]
            arguments += texts if is_argument(parameters[key]) else [f"--{key}", *texts]
        check_arguments(command, words, arguments, options)
        return Step(name, (*words, *arguments), (*words, *sorted(settings)), tuple(sources), makes, always)


def _file_of(text: str) -> Path | None:
    """Return the file that an argument names, FILE or NAME=FILE; None for other text."""
    places = (Path(text), Path(text.partition("=")[2] or "/"))
    return next((path for path in places if path.is_file()), None)


def _in_store(path: Path, name: str) -> bool:
    if not path.exists():
        return False
    from featurestore.store.feature_store import FeatureStore

    return name in FeatureStore.open(path)
