"""A specification says exactly what rows are: equal ones mix, different ones are told apart field by field."""

import dataclasses
import json

import pytest

from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec, check_set_name

SPEC = FeatureSpec(
    "audio", "wavlm-large", "sha256:ab", ("layer_06", "layer_12"), 1024, 50.0, extra={"b": "2", "a": "1"}
)


def test_fingerprints_never_change() -> None:
    """A changed fingerprint would turn every store on disk into a mismatch."""
    assert SPEC.fingerprint == "bbe8230fef17d0cb"
    assert (
        FeatureSpec("posteriors", "m01", "none", ("logits",), 2, columns=("sad", "happy")).fingerprint
        == "8916f62c6df25379"
    )


CHANGES = {
    "kind": "text",
    "encoder": "wavlm-base",
    "weights": "none",
    "layers": ("layer_12", "layer_06"),
    "dim": 768,
    "frame_rate_hz": 49.0,
    "dtype": "float32",
    "pool": "mean",
    "window": "30s+1s",
    "source": "whisper",
    "columns": tuple("c" * 1024),
    "version": 2,
    "extra": (("a", "1"),),
}


def test_every_field_is_tried() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(FeatureSpec)}


@pytest.mark.parametrize("field", CHANGES)
def test_each_field_counts_and_is_named(field: str) -> None:
    changed = dataclasses.replace(SPEC, **{field: CHANGES[field]})
    assert changed.fingerprint != SPEC.fingerprint
    differences = SPEC.differences(changed)
    assert len(differences) == 1
    assert differences[0].startswith(f"{field}: stored ")


def test_differences_read_well() -> None:
    changed = dataclasses.replace(SPEC, dtype="float32", extra={})
    assert SPEC.differences(changed) == ["dtype: stored float16, asked float32", "extra: stored a=1,b=2, asked (none)"]
    assert SPEC.differences(SPEC) == []


@pytest.mark.parametrize(
    "spec", [SPEC, *(dataclasses.replace(SPEC, **{name: value}) for name, value in CHANGES.items())]
)
def test_json_round_trip(spec: FeatureSpec) -> None:
    reread = FeatureSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert reread == spec
    assert reread.fingerprint == spec.fingerprint


def test_dict_and_pairs_are_the_same_extra() -> None:
    assert dataclasses.replace(SPEC, extra=(("b", "2"), ("a", "1"))) == SPEC
    assert hash(SPEC) == hash(dataclasses.replace(SPEC))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "video"}, "kind"),
        ({"dtype": "int16"}, "dtype"),
        ({"pool": "max"}, "pool"),
        ({"dim": 0}, "dim"),
        ({"layers": ()}, "layers"),
        ({"layers": ("a", "a")}, "layers"),
        ({"layers": ("../a",)}, "../a"),
        ({"layers": ("offsets",)}, "offsets"),
        ({"layers": ("layer_00.scale",)}, "scale"),
        ({"layers": (".hidden",)}, ".hidden"),
        ({"columns": ("one",)}, "columns"),
    ],
)
def test_bad_fields_are_named(change: dict, named: str) -> None:
    with pytest.raises(StoreError, match=named):
        dataclasses.replace(SPEC, **change)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({**SPEC.to_json(), "codec": "zstd"}, "codec"),
        ({name: value for name, value in SPEC.to_json().items() if name != "dim"}, "dim"),
        ({**SPEC.to_json(), "dim": "12"}, "dim"),
        ({**SPEC.to_json(), "dim": True}, "dim"),
        ({**SPEC.to_json(), "layers": [1]}, "layers"),
        ({**SPEC.to_json(), "layers": "layer_01"}, "layers"),
        ([], "list"),
    ],
)
def test_damaged_json_is_a_store_error(values: dict, named: str) -> None:
    with pytest.raises(StoreError, match=named):
        FeatureSpec.from_json(values)


@pytest.mark.parametrize("name", ["a", "wavlm-large", "posteriors/m08", "A.b_c+d/2"])
def test_safe_names_pass(name: str) -> None:
    assert check_set_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "/a", "..", "a/../b", ".a", "a//b", "a b", "ä", "a\n", "seg-0123456789abcdef"]
)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(StoreError, match="not allowed"):
        check_set_name(name)
