"""Opening the web pages, and badges."""

import httpx
import pytest

from husai.errors import Exit
from husai.local_server import Server
from tests.husai.conftest import Husai
from tests.husai.test_transport import reply, service


def test_open_signs_a_browser_in_once_without_a_key_in_the_address(
    husai: Husai, server: Server, trained: dict[str, str]
) -> None:
    done = husai("open", trained["sae"][:20], "--no-browser")
    address = done.out.strip()
    assert (done.code, address.startswith(f"{server.url}/sign-in?code=")) == (Exit.OK, True)
    assert (server.home / "key").read_text().strip() not in address
    assert address.endswith(f"next=%2Fjobs%2F{trained['sae']}")
    with httpx.Client(follow_redirects=False, trust_env=False) as browser:
        signed_in = browser.get(address)
        assert signed_in.headers["location"] == f"/jobs/{trained['sae']}"
        assert browser.cookies
    assert httpx.get(address, trust_env=False).status_code == 401, "the code has been used"


def test_a_job_that_does_not_exist_is_not_opened(husai: Husai) -> None:
    assert husai("open", "0" * 24, "--no-browser").code == Exit.USAGE


def test_a_badge_is_made_public_by_name(run: Husai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_KEY", "husai_x")
    answers = reply(200, {"sha256": "a" * 64}), reply(200, {})
    with service(*answers) as (url, seen):
        monkeypatch.setenv("HUSAI_URL", url)
        done = run("badge", "a" * 12, "--public")
        assert (done.code, done.out) == (Exit.OK, f"{url}/badges/{'a' * 64}/strict.svg\n")
        assert (seen[1].path, seen[1].body) == (f"/v1/candidates/{'a' * 64}/badge", b'{"public":true}')
        assert run("badge", "a" * 12).code == Exit.USAGE


def test_signing_keys_are_printed_for_verify(run: Husai, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n"
    key = {"keyid": "k1", "pem": pem, "public_key": "abc", "current": True}
    monkeypatch.setenv("HUSAI_KEY", "husai_x")
    with service(reply(200, {"items": [key, key | {"keyid": "k0", "current": False}]})) as (url, _):
        monkeypatch.setenv("HUSAI_URL", url)
        out = run("keys", "signing").out
    assert out == f"# k1\n{pem}# k0 (an earlier key)\n{pem}"


def test_a_plan_says_time_memory_disk_and_what_is_missing(run: Husai, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {"units": 1e9, "seconds": 75.0, "at_most": True, "memory_bytes": 2e9, "written_bytes": 5e6}
    cost["basis"] = "12 recent jobs"
    spec = {"recipe": {"k": 8, "d_sae": 64, "architecture": "topk"}, "seeds": [0, 1], "variants": []}
    cell = {"name": "job", "kind": "train.sae", "spec": spec, "inputs": {}, "estimate": cost}
    usual = {"recipe": {"default": {"k": 4, "d_sae": 64, "architecture": "relu"}}, "variants": {"default": []}}
    kind = {"name": "train.sae", "spec_schema": {"properties": usual | {"seeds": {"default": [0]}}}}
    missing = [{"name": "gpt2", "how": "hf download gpt2"}, "input 'activations' is missing"]
    plan = {"cells": [cell], "estimate": cost, "missing": missing}
    monkeypatch.setenv("HUSAI_KEY", "husai_x")
    with service(reply(200, plan), reply(200, kind)) as (url, _):
        monkeypatch.setenv("HUSAI_URL", url)
        text = " ".join(run("submit", "train.sae", "--plan").out.split())
    assert "train.sae at most 1 min 15 s 2 GB 5 MB" in text
    assert "job: recipe.k: 8 recipe.architecture: topk seeds: [0, 1] In all" in text
    assert "In all: at most 1 min 15 s, 2 GB of memory, 5 MB on disk." in text
    assert "The time rests on: 12 recent jobs." in text
    assert "missing: gpt2: hf download gpt2" in text
    assert "missing: input 'activations' is missing" in text
