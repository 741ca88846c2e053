import io
from pathlib import Path
from typing import Any

import pytest

from husai.errors import Usage
from husai.spec_args import assign, bindings, parse, spec_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16), ("1e-3", 0.001), ("-2.5", -2.5), (".5", 0.5), ("true", True), ("null", None), ("", None),
        ("[0, 1]", [0, 1]), ("{a: 1}", {"a": 1}), ('"7"', "7"), ("topk", "topk"), ("no", "no"), ("on", "on"),
        ("010", "010"), ("1:30", "1:30"), ("2026-01-31", "2026-01-31"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        (".nan", ".nan"), ("blocks.0.hook_resid_post", "blocks.0.hook_resid_post"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_json_not_of_yaml_1_1(text: str, value: Any) -> None:
    parsed = parse(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        "!!python/object/apply:os.system [ls]",
        "!!timestamp 2026-01-31",
        "{1e999: 2",
        '!!int ""',
        "!!float ''",
        "!!bool x",
        "!!timestamp x",
        "a: [!!bool x]",
    ],
)
def test_what_is_no_json_is_a_usage_error_of_one_line(text: str) -> None:
    with pytest.raises(Usage) as error:
        parse(text, "spec.yaml")
    assert str(error.value).startswith("spec.yaml: ")
    assert "\n" not in str(error.value)


def test_set_reaches_into_mappings_and_lists() -> None:
    spec: dict[str, Any] = {"seeds": [0, 1], "recipe": {"k": 8}}
    assign(spec, ["recipe.k=16", "recipe.lr=1e-3", "seeds[1]=7", "seeds.2=9", "new.deep[0].x=a", "flat=[1]"])
    assert spec == {
        "seeds": [0, 7, 9], "recipe": {"k": 16, "lr": 0.001}, "new": {"deep": [{"x": "a"}]}, "flat": [1],
    }  # fmt: skip


def test_a_later_setting_wins_and_an_equals_sign_may_be_in_the_value() -> None:
    assert assign({}, ["a=1", "a=2", "b=x=y"]) == {"a": 2, "b": "x=y"}


@pytest.mark.parametrize("setting", ["k", "=1", "a..b=1", "seeds[9]=1", "seeds.x=1", "k.x=1"])
def test_a_setting_that_fits_nothing_is_refused(setting: str) -> None:
    with pytest.raises(Usage, match="--set"):
        assign({"seeds": [0], "k": 3}, [setting])


def test_inputs_are_digests_or_outputs_of_jobs() -> None:
    sha = "ab" * 32
    assert bindings([f"saes={sha}", "saes=job:12345678:saes:2", "activations=job:12345678:activations"]) == {
        "saes": [sha, {"job": "12345678", "output": "saes", "index": 2}],
        "activations": [{"job": "12345678", "output": "activations"}],
    }


@pytest.mark.parametrize("word", ["saes", "=x", "saes=abc", "saes=job:1", "saes=job:1:saes:x", "saes=" + "AB" * 32])
def test_an_input_of_another_form_is_refused(word: str) -> None:
    with pytest.raises(Usage, match="--input"):
        bindings([word])


@pytest.mark.parametrize("source", ["1b3e", "job:1b3e:saes"])
def test_too_short_a_name_says_how_many_digits_it_takes(source: str) -> None:
    with pytest.raises(Usage, match="first 8 digits"):
        bindings([f"saes={source}"])


def test_a_spec_file_is_a_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("recipe: {k: 16}\nas_of: 2026-01-31T12:00:00Z\n")
    assert spec_file(path) == {"recipe": {"k": 16}, "as_of": "2026-01-31T12:00:00Z"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"k": 1}'))
    assert spec_file(Path("-")) == {"k": 1}
    path.write_text("- 1\n")
    with pytest.raises(Usage, match="mapping"):
        spec_file(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Usage, match="cannot read"):
        spec_file(path)
    with pytest.raises(Usage, match="No such file"):
        spec_file(tmp_path / "absent.yaml")


def test_broken_yaml_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(Usage, match=r"--set seeds: this is not YAML: expected ',' or ']', .*\(line 1, column 5\)"):
        assign({}, ["seeds=[0,1"])
    (tmp_path / "ours.yaml").write_text("some prose")
    with pytest.raises(Usage, match="a policy is written as lines of `field: value`"):
        spec_file(tmp_path / "ours.yaml", "a policy")
