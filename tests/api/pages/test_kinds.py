import itertools
import textwrap
from pathlib import Path

import pytest

from husai_core import kinds
from husai_core.kinds import stress
from services import leases
from tests.api.pages.browser import Browser, Page
from tests.api.serving import start, stop

SEEDS = itertools.count(70_000)
WHERE = "/kinds/train.transformer"


def fill(**fields: object) -> dict[str, object]:
    return {"action": "submit", "priority": "batch", "spec.seed": str(next(SEEDS)), **fields}


def test_every_kind_has_a_page_with_its_fields(browser):
    links = {e.attributes["href"] for e in browser.get("/kinds").all("a", class_="tile")}
    assert links == {f"/kinds/{name}" for name in kinds.names()}
    for name in kinds.names():
        page = browser.get(f"/kinds/{name}")
        shown = {e.attributes.get("name") for e in page.elements}
        assert {f"inputs.{port}" for port in kinds.get(name).inputs} <= shown
        labelled = {e.attributes.get("for") for e in page.all("label")}
        ids = {
            e.attributes["id"] for tag in ("input", "select", "textarea") for e in page.all(tag) if "id" in e.attributes
        }
        assert ids <= labelled


def test_an_unknown_kind_is_not_there(browser):
    response = browser.client.get("/kinds/train.nothing")
    assert response.status_code == 404
    assert "There is no kind" in response.text


def test_the_form_submits_a_job(browser):
    fields = fill(**{"spec.p": "23", "spec.betas": "0.9, 0.95", "spec.leaks_label": "no", "labels": "a, b"})
    response = browser.post(WHERE, fields)
    assert response.status_code == 303
    job = browser.client.get(f"/v1{response.headers['location']}").json()
    assert (job["spec"]["p"], job["spec"]["betas"], job["labels"]) == (23, [0.9, 0.95], ["a", "b"])
    assert job["priority"] == "batch"


def test_sending_the_same_form_twice_makes_one_job(browser):
    fields = fill(once="abc" + str(next(SEEDS)))
    first, second = (browser.post(WHERE, fields).headers["location"] for _ in range(2))
    assert first == second


def test_errors_stand_beside_their_fields_and_keep_what_was_typed(browser):
    response = browser.post(WHERE, fill(**{"spec.p": "-4", "spec.lr": "fast"}))
    assert response.status_code == 422
    assert "&#39;fast&#39; is not a number" in response.text
    response = browser.post(WHERE, fill(**{"spec.p": "-4", "spec.steps": "17"}))
    page = browser_page(response)
    (wrong,) = page.all("p", id="spec.p-error")
    assert "at least 3" in wrong.text
    (field,) = page.all("input", id="spec.p")
    assert field.attributes["value"] == "-4"
    assert field.attributes["aria-invalid"] == "true"
    assert "spec.p-error" in str(field.attributes["aria-describedby"])
    assert page.all("input", id="spec.steps")[0].attributes["value"] == "17"


def browser_page(response):
    assert response.status_code == 422, response.text[:300]
    return Page(response.text)


def test_json_that_is_nested_too_deeply_is_said_beside_its_field(browser):
    page = browser_page(browser.post("/kinds/train.sae", fill(**{"spec.variants": "[" * 100_000})))
    (wrong,) = page.all("p", id="spec.variants-error")
    assert "nested too deeply" in wrong.text


@pytest.mark.parametrize("once", ["a" * 256, "with space", "ключ"])
def test_a_form_is_refused_whose_key_no_page_holds(browser, once):
    response = browser.post(WHERE, fill(once=once))
    assert response.status_code == 422
    assert "Load it again" in response.text


def test_a_wrong_input_is_said_beside_its_port(browser):
    response = browser.post("/kinds/train.sae", {"action": "submit", "inputs.activations": "nonsense"})
    assert browser_page(response).all("p", id="inputs.activations-error")
    response = browser.post("/kinds/train.sae", {"action": "submit"})
    assert "needs input" in browser_page(response).text


def test_a_plan_shows_the_jobs_and_runs_nothing(browser):
    before = browser.client.get("/v1/jobs?limit=1").json()["items"][:1]
    response = browser.post("/kinds/study.pipeline", {"action": "plan", "spec.preset": "smoke"})
    assert response.status_code == 200
    for name in ("transformer", "activations", "gate"):
        assert name in response.text
    assert browser.client.get("/v1/jobs?limit=1").json()["items"][:1] == before


def test_a_preset_and_an_earlier_job_fill_the_form(browser, submit):
    preset = next(iter(kinds.get("train.transformer").presets))
    assert 'aria-current="true"' in browser.client.get(f"{WHERE}?preset={preset}").text
    job = submit(spec={"p": 31, "seed": next(SEEDS)}, labels=["mine"])
    page = browser.get(f"{WHERE}?from={job['id']}")
    assert page.all("input", id="spec.p")[0].attributes["value"] == "31"
    assert page.all("input", id="labels")[0].attributes["value"] == "mine"


def test_a_key_that_may_not_submit_is_refused(server, visitor):
    visitor.sign_in(server.make_key("ada", ["read"]))
    assert "may not submit" in visitor.get(WHERE).text
    response = visitor.post(WHERE, fill())
    assert response.status_code in (403, 422)
    assert "submit" in response.text


def test_the_form_needs_its_token(browser):
    assert browser.client.post(WHERE, data=fill()).status_code == 403


KIND = '''
    """Is <script>alert("help")</script> harmless?

    A kind that a lab has added."""

    from husai_core.evidence import BaseResult
    from husai_core.kinds.kind import BaseSpec, Kind
    from pydantic import Field


    class Spec(BaseSpec):
        """What to do."""

        depth: int = Field(3, ge=1, description="how <b>deep</b>")


    class Result(BaseResult):
        """What came out."""

        answer: float


    def run(spec, inputs, job):
        return Result(answer=float(spec.depth))


    KIND = Kind(spec=Spec, result=Result, run=run)
'''


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server whose `stress` family has one more kind, a file that nothing else names."""
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds/added.py").write_text(textwrap.dedent(KIND))
    site = "import husai_core.kinds.stress as stress\n" + f"stress.__path__.append({str(tmp_path / 'kinds')!r})\n"
    (tmp_path / "sitecustomize.py").write_text(site)
    server = start(tmp_path / "home", HUSAI_DEVICE="cpu", PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[3]}")
    monkeypatch.setattr(stress, "__path__", [*stress.__path__, str(tmp_path / "kinds")])
    kinds.names.cache_clear()
    yield server
    stop(server)
    monkeypatch.undo()
    kinds.names.cache_clear()


def test_a_new_kind_has_pages_without_another_edit(extended):
    browser = Browser(extended.url)
    browser.sign_in((extended.home / "key").read_text().strip())
    assert "stress.added" in browser.get("/kinds").text
    page = browser.get("/kinds/stress.added")
    assert page.all("input", id="spec.depth")[0].attributes["placeholder"] == "3"
    assert not [e for e in page.all("script") if "src" not in e.attributes]
    assert not page.all("b")
    where = browser.post("/kinds/stress.added", {"action": "submit", "spec.depth": "5"}).headers["location"]
    job = browser.client.get(f"/v1{where}").json()
    assert job["spec"] == {"depth": 5}
    with extended.database.write() as session:
        claim = leases.claim(session, "w", "b", ("stress",), ("cpu", "cuda"), 600)
    extended.finish(claim, {"answer": 5.0})
    page = browser.get(where)
    assert "answer" in page.text
    assert "5.000" in page.text
    assert not [e for e in page.all("script") if "src" not in e.attributes]
    assert "answer" in browser.client.get(f"/v1{where}/report").text


def test_how_a_kind_works_keeps_its_lists(browser):
    (how,) = browser.get("/kinds/data.import").all("div", class_="prose")
    items = [element.text for element in how.inside if element.tag == "li"]
    assert [item.split("`")[1] for item in items][:2] == ["saelens", "dictionary_learning"]


def test_an_optional_group_is_folded_until_one_of_its_fields_is_filled(browser):
    """Its fields have defaults, but an empty group asks for none of them."""
    (group,) = browser.get("/kinds/stress.ood").all("details", class_="alternative")
    assert "optional" in group.text
    assert "open" not in group.attributes
    answer = browser.post("/kinds/stress.ood", {"spec.recipe.k": "3", "action": "plan"}, at="/kinds/stress.ood")
    assert '<details class="alternative" open><summary><strong>recipe' in answer.text
