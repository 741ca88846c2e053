from services.tables import Worker
from tests.api.pages.browser import Browser, Page
from tests.api.serving import slug

HOSTILE = "<script>alert('x')</script>"


def test_the_queue_and_the_workers(server, browser, submit):
    submit()
    with server.database.write() as session:
        session.merge(
            Worker(
                id="w1", boot_id="b", host=HOSTILE, pid=7, queues=["train"], device="cpu", slots=2, started_at=1.0,
                seen_at=1.0, state="ready",
            )
        )  # fmt: skip
    page = browser.get("/workers")
    assert HOSTILE in page.text
    assert "silent" in page.text
    assert not [e for e in page.all("script") if "src" not in e.attributes]
    (row,) = [e for e in page.all("tr") if e.inside[0].text == "train"]
    assert int(row.inside[-1].text) >= 1


def test_an_admin_makes_a_key_that_is_shown_once(server):
    browser = Browser(server.url)
    browser.sign_in((server.home / "key").read_text().strip())
    fields = {"name": "laptop", "owner": "grace", "scopes": ["read", "submit"], "expires_in_days": "7"}
    response = browser.post("/keys", fields)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    (token,) = [e.text for e in Page(response.text).all("pre")]
    key = server.client(token).get("/v1/keys").json()["items"][0]
    assert (key["owner"], key["scopes"], key["name"]) == ("grace", ["read", "submit"], "laptop")
    assert token not in browser.client.get("/keys").text
    wrong = browser.post("/keys", {"name": "x y", "scopes": ["read"]})
    assert wrong.status_code == 422
    assert "name:" in Page(wrong.text).text


def test_only_an_admin_makes_keys(browser):
    assert "New key" not in browser.get("/keys").text
    assert browser.post("/keys", {"name": "laptop", "scopes": "admin"}).status_code == 403


def test_revoking_a_key_ends_its_sessions(server, browser):
    other = Browser(server.url)
    token = server.make_key("ada", ["read"])
    other.sign_in(token)
    items = browser.client.get("/v1/keys").json()["items"]
    key_id = next(key["id"] for key in items if key["prefix"] in token)
    assert browser.post(f"/keys/{key_id}/revoke", at="/keys").status_code == 303
    assert slug(other.client.get("/v1/jobs")) == (401, "revoked-key")


def test_the_browsers_of_a_key_are_counted_and_signed_out(server, browser, visitor):
    token = server.make_key("ada", ["read"])
    visitor.sign_in(token)
    key = next(key for key in browser.client.get("/v1/keys").json()["items"] if key["prefix"] in token)
    assert key["browsers"] == 1
    stranger = server.client(server.make_key("eve", ["read", "submit", "gate"]))
    assert slug(stranger.delete(f"/v1/keys/{key['id']}/browsers")) == (404, "unknown-key")
    assert browser.post(f"/keys/{key['id']}/sign-out", at="/keys").status_code == 303
    assert slug(visitor.client.get("/v1/jobs")) == (401, "signed-out")
    client = server.client(token)
    assert [key["browsers"] for key in client.get("/v1/keys").json()["items"] if key["prefix"] in token] == [0]
