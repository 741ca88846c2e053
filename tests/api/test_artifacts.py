"""Uploading and fetching files by digest."""

import base64
import hashlib
import socket
import time

import httpx

from tests.api.serving import MAX_UPLOAD, Server, slug


def upload(client: httpx.Client, data: bytes, name: str = "weights.bin", **headers: str) -> httpx.Response:
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    sent = {"Content-Type": "application/octet-stream", "Content-Digest": f"sha-256=:{digest}:"} | headers
    return client.post("/v1/artifacts", params={"name": name}, content=data, headers=sent)


def test_an_upload_comes_back_by_digest(ada):
    data = bytes(range(256)) * 8000
    created = upload(ada, data)
    assert created.status_code == 201
    artifact = created.json()
    blob = hashlib.sha256(data).hexdigest()
    assert artifact["files"] == {"weights.bin": {"sha256": blob, "size": len(data)}}
    assert created.headers["location"] == f"/v1/artifacts/{artifact['sha256']}"
    index = ada.get(f"/v1/artifacts/{artifact['sha256']}")
    assert index.json() == {"type": "upload", "files": artifact["files"]}
    assert hashlib.sha256(index.content).hexdigest() == artifact["sha256"]
    fetched = ada.get(f"/v1/artifacts/{blob}")
    assert fetched.content == data
    assert fetched.headers["etag"] == f'"{blob}"'
    assert "immutable" in fetched.headers["cache-control"]
    assert ada.get(f"/v1/artifacts/{blob}", headers={"If-None-Match": fetched.headers["etag"]}).status_code == 304
    head = ada.head(f"/v1/artifacts/{blob}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))
    listed = ada.get("/v1/artifacts?type=upload&limit=1").json()["items"]
    assert listed[0]["sha256"] == artifact["sha256"]


def test_ranges_of_a_file(ada):
    data = bytes(i % 251 for i in range(1 << 20))
    upload(ada, data)
    path = f"/v1/artifacts/{hashlib.sha256(data).hexdigest()}"
    for header, expected in {"bytes=10-19": data[10:20], "bytes=-5": data[-5:], "bytes=600000-": data[600000:]}.items():
        response = ada.get(path, headers={"Range": header})
        assert (response.status_code, response.content) == (206, expected)
        assert int(response.headers["content-length"]) == len(expected)
    beyond = ada.get(path, headers={"Range": f"bytes={1 << 20}-"})
    assert slug(beyond) == (416, "range-not-satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{1 << 20}"
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(100))
    for ignored in ("rows=1-2", "bytes=0-1,4-5", ranges):
        assert ada.get(path, headers={"Range": ignored}).content == data
    etag, first = ada.get(path).headers["etag"], {"Range": "bytes=0-1"}
    assert ada.get(path, headers=first | {"If-Range": etag}).content == data[:2]
    for other in (f"W/{etag}", '"x"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert ada.get(path, headers=first | {"If-Range": other}).status_code == 200
    assert ada.get(path, headers={"If-None-Match": '"x",' * 300 + etag}).status_code == 200


def test_names_may_be_in_any_script(ada):
    for name in ("红楼.txt", "ä.txt", "हिन्दी.txt"):
        assert upload(ada, name.encode(), name).json()["files"].keys() == {name}
    blob = hashlib.sha256("ä.txt".encode()).hexdigest()
    created = ada.post("/v1/artifacts/trees", json={"files": {"层一/ä.txt": blob, "层二/ö.txt": blob}})
    assert created.status_code == 201
    assert ada.get(f"/v1/artifacts/{created.json()['sha256']}").json()["files"].keys() == {"层一/ä.txt", "层二/ö.txt"}


def test_names_that_look_like_others_are_refused(ada):
    for name in ("a\u0308.txt", "a\u200d.txt", "\u202ea.txt", "字" * 90 + ".txt", "a b.txt", "_a", "a\n", "\u0301a"):
        assert slug(upload(ada, b"x", name)) == (422, "invalid-request"), name


def test_bad_uploads_leave_nothing(ada, server: Server):
    wrong = base64.b64encode(bytes(32)).decode()
    data = b"something else"
    assert slug(upload(ada, data, **{"Content-Digest": f"sha-256=:{wrong}:"})) == (422, "digest-mismatch")
    assert not server.store.exists(hashlib.sha256(data).hexdigest())
    assert slug(upload(ada, data, **{"Content-Digest": "md5=:AAAA:"})) == (422, "invalid-request")
    assert slug(upload(ada, data, **{"Content-Type": "text/plain"})) == (415, "unsupported-media-type")
    for name in ("../key", "a/b", "", ".hidden"):
        assert slug(upload(ada, data, name)) == (422, "invalid-request")
    assert slug(upload(ada, bytes(MAX_UPLOAD + 1))) == (413, "body-too-large")
    assert slug(ada.post("/v1/artifacts", params={"name": "x", "type": "result"}, content=b"")) == (
        422,
        "invalid-request",
    )


def test_an_upload_that_breaks_off_is_no_fault_of_the_server(ada, server: Server):
    head = "\r\n".join(
        ["POST /v1/artifacts?name=x HTTP/1.1", "Host: x", "Content-Length: 9", "Content-Type: application/octet-stream",
         f"Authorization: {ada.headers['Authorization']}", f"Content-Digest: sha-256=:{'A' * 43}=:", "", "half"]
    )  # fmt: skip
    url = httpx.URL(server.url)
    before = set(server.home.iterdir())
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head.encode())
        time.sleep(0.5)  # so that the half has come
        assert set(server.home.iterdir()) == before
    deadline = time.monotonic() + 60
    answers = 'husai_http_requests_total{method="POST",route="/v1/artifacts",status="%d"}'
    while answers % 400 not in (metrics := ada.get("/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert answers % 500 not in metrics


def test_unknown_artifacts(ada):
    assert slug(ada.get("/v1/artifacts/" + "0" * 64)) == (404, "unknown-artifact")
    assert slug(ada.get("/v1/artifacts/..%2Fkey")) == (404, "not-found")
    assert slug(ada.get("/v1/artifacts/xyz")) == (404, "unknown-artifact")


def test_a_tree_of_uploaded_files(ada):
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("cfg.json", "model.bin")}
    for name in files:
        assert upload(ada, name.encode(), name).status_code == 201
    created = ada.post("/v1/artifacts/trees", json={"type": "upload", "files": files})
    assert created.status_code == 201
    assert created.json()["size"] == len("cfg.jsonmodel.bin")
    again = ada.post("/v1/artifacts/trees", json={"type": "upload", "files": files})
    assert again.json()["sha256"] == created.json()["sha256"]
    digest = files["cfg.json"]
    nested = ada.post("/v1/artifacts/trees", json={"files": {"0/cfg.json": digest, "1/cfg.json": digest}})
    assert set(nested.json()["files"]) == {"0/cfg.json", "1/cfg.json"}
    for names in (["../a"], ["/a"], ["a//b"], ["a/.b"], ["a", "a/b"], ["/".join("abcdefghi")]):
        refused = ada.post("/v1/artifacts/trees", json={"files": dict.fromkeys(names, digest)})
        assert slug(refused) == (422, "invalid-request"), names
    unknown = ada.post("/v1/artifacts/trees", json={"files": {"x": "0" * 64}})
    assert slug(unknown) == (422, "unknown-artifact")
    forged = ada.post("/v1/artifacts/trees", json={"type": "result", "files": files})
    assert slug(forged) == (422, "invalid-request")


def test_an_uploaded_index_is_not_an_artifact_of_that_type(ada):
    forged = b'{"files":{},"type":"activations"}'
    upload(ada, forged, "index.json")
    inputs = {"activations": hashlib.sha256(forged).hexdigest()}
    assert slug(ada.post("/v1/jobs", json={"kind": "train.sae", "inputs": inputs})) == (422, "unknown-artifact")


def test_a_browser_stores_an_artifact_and_runs_nothing_in_it(ada):
    page = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    stored = upload(ada, page, "a.svg").json()
    for digest in (hashlib.sha256(page).hexdigest(), stored["sha256"]):
        answers = [ada.get(f"/v1/artifacts/{digest}"), ada.head(f"/v1/artifacts/{digest}")]
        answers.append(ada.get(f"/v1/artifacts/{digest}", headers={"Range": "bytes=0-3"}))
        for response in answers:
            assert response.headers["content-disposition"].startswith("attachment")
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in response.headers["content-security-policy"]
            assert not response.headers["content-type"].startswith(("text/html", "image"))
