"""`husai policies`, against the real service."""

import re
from pathlib import Path

import yaml

from husai.errors import Exit
from husai_core.release.policy import Policy, load
from tests.husai.conftest import Husai

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
STATISTIC = "pwmcc_excess"


def test_the_policies_that_come_with_husai_are_listed_and_shown(husai: Husai) -> None:
    listed = husai("policies", "list", "--json").json["items"]
    assert {"strict", "internal", "own", "reference-2026-02"} <= {policy["name"] for policy in listed}
    assert "comes with husai" in husai("policies", "list").out
    shown = husai("policies", "show", "internal")
    assert (shown.code, shown.out.startswith("# comes with husai, digest ")) == (Exit.OK, True)
    assert Policy.model_validate(yaml.safe_load(shown.out)).digest == load("internal").digest


def test_a_file_made_from_a_shown_policy_is_added_and_retired(husai: Husai, tmp_path: Path) -> None:
    rules = [rule for rule in load("internal").rules if rule.name in ("provenance", "stability")]
    ours = load("internal").model_copy(update={"name": "ours", "version": 1, "rules": tuple(rules)})
    file = tmp_path / "ours.yaml"
    file.write_text(yaml.safe_dump(ours.model_dump(mode="json")))
    added = husai("policies", "add", file)
    assert (added.code, "ours, version 1, decides from now on" in added.out) == (Exit.OK, True), added.err
    assert Policy.model_validate(yaml.safe_load(husai("policies", "show", "ours").out)).digest == ours.digest
    again = husai("policies", "add", file)
    assert (again.code, "needs a higher number" in again.err) == (Exit.USAGE, True)
    file.write_text(yaml.safe_dump(ours.model_copy(update={"version": 2}).model_dump(mode="json")))
    assert husai("policies", "add", file, "--json").json["version"] == 2
    assert "version: 1" in husai("policies", "show", "ours", "--version", "1").out
    assert "ours is retired" in husai("policies", "retire", "ours").out
    assert "retired" in husai("policies", "list").out


def test_the_policy_of_the_documentation_is_accepted(husai: Husai, tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "documented.yaml"
    file.write_text(block.replace("name: ours", "name: documented", 1))
    assert husai("policies", "add", file).code == Exit.OK
    assert f"statistic: {STATISTIC}" in block
    assert STATISTIC in husai("kinds", "stress.trained_vs_random").out


def test_a_policy_that_reads_what_nobody_measures_is_refused_with_the_nearest_name(
    husai: Husai, tmp_path: Path
) -> None:
    document = load("internal").model_dump(mode="json") | {"name": "typo"}
    document["rules"] = [rule for rule in document["rules"] if rule["name"] == "stability"]
    document["rules"][0]["statistic"] = "pwmcc_exces"
    file = tmp_path / "typo.json"
    file.write_text(yaml.safe_dump(document))
    done = husai("policies", "add", file)
    assert (done.code, "did you mean pwmcc_excess" in " ".join(done.err.split())) == (Exit.USAGE, True)
    assert husai("policies", "show", "typo").code == Exit.USAGE
