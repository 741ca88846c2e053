import time

import pytest

from services import accounts
from services.tables import ApiKey, LoginCode, WebSession
from tests.api.pages.browser import Browser
from tests.api.serving import Server, slug, start, stop


def key(server: Server, **options) -> str:
    return server.make_key("ada", ["read", "submit", "gate"], **options)


def cookies(response) -> list[str]:
    return [value for value in response.headers.get_list("set-cookie") if "_form=" not in value]


def test_a_page_needs_a_session_and_leads_back_after_signing_in(server, visitor):
    refused = visitor.client.get("/jobs?state=failed")
    assert refused.status_code == 303
    assert refused.headers["location"] == "/sign-in?next=%2Fjobs%3Fstate%3Dfailed"
    page = visitor.get(refused.headers["location"])
    fields = page.form("/sign-in") | {"key": key(server)}
    response = visitor.client.post("/sign-in", data=fields)
    assert (response.status_code, response.headers["location"]) == (303, "/jobs?state=failed")


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(server, visitor):
    (cookie,) = cookies(visitor.sign_in(key(server)))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age=43200" in cookie
    assert "Secure" not in cookie


def test_the_cookie_is_secure_behind_tls(server, visitor):
    visitor.client.headers["X-Forwarded-Proto"] = "https"
    page = visitor.get("/sign-in")
    (form_cookie,) = visitor.client.cookies.jar
    assert form_cookie.secure
    fields = page.form("/sign-in") | {"key": key(server)}
    sent = {"Cookie": f"{form_cookie.name}={form_cookie.value}"}
    (cookie,) = cookies(visitor.client.post("/sign-in", data=fields, headers=sent))
    assert "Secure" in cookie


def test_a_wrong_key_is_refused_in_words_and_not_repeated(visitor):
    response = visitor.sign_in("husai_nothing_at_all")
    assert response.status_code == 401
    assert "This is not a key of this server." in response.text
    assert "husai_nothing" not in response.text
    assert not cookies(response)


def test_the_sign_in_form_works_only_from_the_browser_that_it_was_given_to(server, visitor):
    fields = visitor.get("/sign-in").form("/sign-in") | {"key": key(server)}
    response = Browser(server.url).client.post("/sign-in", data=fields)
    assert response.status_code == 403
    assert not cookies(response)


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\r\nb"])
def test_signing_in_never_leads_to_another_site(server, visitor, target):
    fields = visitor.get("/sign-in").form("/sign-in") | {"key": key(server), "next": target}
    assert visitor.client.post("/sign-in", data=fields).headers["location"] == "/jobs"


def test_a_session_dies_with_its_key(server, visitor):
    token = key(server)
    visitor.sign_in(token)
    assert visitor.client.get("/v1/jobs").status_code == 200
    key_id = next(row["id"] for row in server.client(token).get("/v1/keys").json()["items"] if row["prefix"] in token)
    assert server.admin.delete(f"/v1/keys/{key_id}").status_code == 200
    assert slug(visitor.client.get("/v1/jobs")) == (401, "revoked-key")
    assert visitor.client.get("/sign-in").status_code == 200


def test_a_session_dies_when_its_key_expires(server, visitor):
    visitor.sign_in(key(server, expires_at=time.time() + 3600))
    assert visitor.client.get("/v1/jobs").status_code == 200
    with server.database.write() as session:
        session.query(ApiKey).filter(ApiKey.expires_at.is_not(None)).update({"expires_at": time.time() - 1})
    assert slug(visitor.client.get("/v1/jobs")) == (401, "expired-key")


def test_a_session_expires(server, visitor):
    visitor.sign_in(key(server))
    with server.database.write() as session:
        session.query(WebSession).update({"expires_at": time.time() - 1})
    assert slug(visitor.client.get("/v1/jobs")) == (401, "signed-out")


def test_signing_out_ends_the_session_on_the_server(server, browser):
    (cookie,) = [c for c in browser.client.cookies.jar if "_form" not in c.name]
    assert browser.post("/sign-out", at="/jobs").status_code == 303
    stolen = Browser(server.url)
    stolen.client.cookies.set(cookie.name, cookie.value or "")
    assert slug(stolen.client.get("/v1/jobs")) == (401, "signed-out")


def test_forms_without_their_token_are_refused(browser):
    for fields in ({"x": "1"}, {"form_token": "0" * 64}, {"form_token": "ü"}):
        assert browser.client.post("/sign-out", data=fields).status_code == 403
    assert browser.client.get("/v1/jobs").status_code == 200


def test_a_session_reads_v1_but_changes_it_only_with_the_token_of_its_forms(browser):
    body = {"kind": "train.transformer", "spec": {"seed": 77}}
    assert slug(browser.client.post("/v1/jobs", json=body)) == (403, "bad-form")
    token = {"X-CSRF-Token": browser.token()}
    assert browser.client.post("/v1/jobs", json=body, headers=token).status_code in (200, 202)


def test_a_session_has_the_scopes_of_its_key(server, visitor):
    visitor.sign_in(server.make_key("ada", ["read"]))
    token = {"X-CSRF-Token": visitor.token()}
    body = {"kind": "train.transformer", "spec": {}}
    assert slug(visitor.client.post("/v1/jobs", json=body, headers=token)) == (403, "wrong-scope")


def code(server: Server) -> str:
    response = server.client(key(server)).post("/v1/login-codes")
    assert response.status_code == 201
    assert response.json()["expires_in"] == 60
    return str(response.json()["code"])


def test_a_code_signs_in_once(server, visitor):
    first = code(server)
    response = visitor.client.get("/sign-in", params={"code": first, "next": "/keys"})
    assert (response.status_code, response.headers["location"]) == (303, "/keys")
    assert visitor.client.get("/v1/jobs").status_code == 200
    again = Browser(server.url).client.get("/sign-in", params={"code": first})
    assert again.status_code == 401
    assert "used before" in again.text
    assert not cookies(again)


def test_a_code_is_worth_nothing_after_a_minute(server, visitor):
    late = code(server)
    with server.database.write() as session:
        session.query(LoginCode).update({"expires_at": time.time() - 1})
    assert visitor.client.get("/sign-in", params={"code": late}).status_code == 401


def test_a_code_does_not_work_when_another_site_leads_to_it(server, visitor):
    response = visitor.client.get("/sign-in", params={"code": code(server)}, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    assert not cookies(response)


def test_a_code_needs_a_key(visitor):
    assert slug(visitor.client.post("/v1/login-codes")) == (401, "bad-key")


def test_a_session_makes_no_code_that_would_renew_it(browser):
    token = {"X-CSRF-Token": browser.token()}
    assert slug(browser.client.post("/v1/login-codes", headers=token)) == (401, "bad-key")


@pytest.mark.parametrize(
    "path", ["/jobs", "/kinds", "/kinds/train.sae", "/candidates", "/decisions", "/workers", "/keys"]
)
def test_every_page_needs_the_scope_to_read(server, visitor, path):
    visitor.sign_in(server.make_key("ada", ["submit"]))
    assert visitor.client.get(path).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[::1]evil"])
def test_a_foreign_name_is_refused_to_browsers(server, browser, host):
    response = browser.client.get("/sign-in", headers={"Host": host})
    assert response.status_code in (400, 421)
    cookie = "; ".join(f"{c.name}={c.value}" for c in browser.client.cookies.jar)
    response = browser.client.get("/v1/jobs", headers={"Host": host, "Cookie": cookie})
    assert response.status_code in (400, 401, 421)


def test_a_key_in_a_header_works_under_any_name(server):
    assert server.admin.get("/v1/jobs", headers={"Host": "lab.example"}).status_code == 200


@pytest.mark.parametrize("name", ["localhost", "[::1]"])
def test_the_names_of_this_machine_are_allowed(server, visitor, name):
    port = server.url.rpartition(":")[2]
    assert visitor.client.get("/sign-in", headers={"Host": f"{name}:{port}"}).status_code == 200


def test_no_secret_is_stored_as_it_is(server, browser):
    (cookie,) = [c for c in browser.client.cookies.jar if "_form" not in c.name]
    with server.database.read() as session:
        stored = {row.mac for row in session.query(WebSession)}
    assert cookie.value not in stored
    assert accounts.mac_key(server.settings)


def test_whether_tls_ended_at_a_proxy_is_believed_of_known_ones_only(tmp_path):
    elsewhere = start(tmp_path / "home", HUSAI_TRUSTED_PROXIES="10.0.0.0/8")
    try:
        visitor = Browser(elsewhere.url)
        visitor.client.headers["X-Forwarded-Proto"] = "https"
        visitor.get("/sign-in")
        (form_cookie,) = visitor.client.cookies.jar
        assert not form_cookie.secure
    finally:
        stop(elsewhere)
