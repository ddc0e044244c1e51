"""The UI's address: closed to other pages and host names, and of the store only reports."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sot_pipeline.defs.report_links import REPORT_ADDRESS
from sot_pipeline.defs.webserver import HOSTS_VARIABLE, OwnPagesOnly, read_report, report_response

FINGERPRINT = "0123456789abcdef0123456789abcdef"
OWN = {"host": "127.0.0.1:3000"}


@pytest.fixture
def store(tmp_path) -> Path:
    folder = tmp_path / "store" / "purification_report" / FINGERPRINT
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>report</h1>")
    (folder / "manifest.json").write_text("{}")
    (tmp_path / "secret.html").write_text("secret")
    return tmp_path / "store"


def ask(
    store: Path, path: str, headers: dict[str, str], method: str = "GET", kind: str = "http"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that the guarded application answers with."""
    app = Starlette(
        middleware=[Middleware(OwnPagesOnly)],
        routes=[
            Route(REPORT_ADDRESS, lambda r: report_response(store, **r.path_params)),
            Route("/{path:path}", lambda _: PlainTextResponse("ui"), methods=["GET", "POST"]),
        ],
    )
    address, _, query = path.partition("?")
    scope = {
        "type": kind, "method": method, "path": address, "raw_path": address.encode(),
        "query_string": query.encode(), "scheme": "http", "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "server": ("127.0.0.1", 3000), "http_version": "1.1",
    }  # fmt: skip
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message) -> None:
        sent.append(dict(message))

    asyncio.run(app(scope, receive, send))
    if sent[0]["type"] == "websocket.close":
        return 403, {}, b""
    told = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(m.get("body", b"") for m in sent[1:])


def test_a_report_is_served_in_an_origin_of_its_own_that_can_fetch_nothing(store):
    address = REPORT_ADDRESS.format(asset="purification_report", fingerprint=FINGERPRINT)
    status, headers, body = ask(store, address, OWN)
    assert (status, body) == (200, b"<h1>report</h1>")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # so default-src decides
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asset", "fingerprint"),
    [
        ("purification_report", ".."),
        ("..", FINGERPRINT),
        ("purification_report", "0" * 32),
        ("purification_report", FINGERPRINT.upper()),
        ("purification_report", f"{FINGERPRINT}/"),
        ("purification_report/", FINGERPRINT),
        (".", f"purification_report/{FINGERPRINT}"),
        ("", ""),
        ("purification_report", f"{FINGERPRINT}\n"),
        ("purification_report\x00", FINGERPRINT),
    ],
)
def test_whatever_is_not_the_name_of_an_artefact_gives_nothing(store, asset, fingerprint):
    assert read_report(store, asset, fingerprint) is None


@given(asset=st.text(max_size=40), fingerprint=st.text(max_size=40))
def test_no_name_gives_a_file_from_elsewhere(tmp_path_factory, asset, fingerprint):
    root = tmp_path_factory.getbasetemp() / "hostile"
    (root / "store").mkdir(parents=True, exist_ok=True)
    (root / "report.html").write_text("secret")
    assert read_report(root / "store", asset, fingerprint) is None


def test_links_are_not_followed(store, tmp_path):
    linked = store / "purification_report" / ("a" * 32)
    linked.mkdir()
    (linked / "report.html").symlink_to(tmp_path / "secret.html")
    assert read_report(store, "purification_report", "a" * 32) is None
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "report.html").write_text("secret")
    (store / "purification_report" / ("b" * 32)).symlink_to(tmp_path / "outside")
    assert read_report(store, "purification_report", "b" * 32) is None


def test_a_pipe_in_the_place_of_a_report_hangs_nobody(store):
    folder = store / "purification_report" / ("c" * 32)
    folder.mkdir()
    os.mkfifo(folder / "report.html")
    assert read_report(store, "purification_report", "c" * 32) is None


def test_other_files_and_folders_are_not_listed(store):
    for path in (
        f"/sot/report/purification_report/{FINGERPRINT}/manifest.json",
        "/sot/report/purification_report",
        "/sot/report/",
    ):
        _, _, body = ask(store, path, OWN)
        assert body == b"ui"  # Dagster's own page, which knows none of it


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost:3000", "LOCALHOST", "[::1]:3000"])
def test_this_machine_s_names_are_answered(store, host):
    assert ask(store, "/", {"host": host})[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "", "localhost.evil:1"]
)
def test_a_foreign_name_for_this_machine_is_refused(store, host):
    status, _, body = ask(store, "/graphql", {"host": host}, "POST")
    assert status == 403
    assert HOSTS_VARIABLE.encode() in body


def test_a_proxy_s_name_may_be_allowed(store, monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "dagster.example, other.example")
    assert ask(store, "/", {"host": "dagster.example:8443"})[0] == 200


@pytest.mark.parametrize(
    "foreign",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},  # a page in a sandbox, such as a report
        {"origin": "http://127.0.0.1:9999"},  # another program's page on this machine
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_another_page_may_send_nothing(store, foreign, kind):
    assert ask(store, "/graphql", OWN | foreign, "POST", kind)[0] == 403


def test_the_ui_s_own_requests_and_links_from_elsewhere_pass(store):
    assert ask(store, "/graphql", OWN | {"origin": "http://127.0.0.1:3000"}, "POST")[0] == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ask(store, "/runs", OWN | link)[0] == 200


def test_graphql_by_get_is_refused_as_a_link_could_start_runs(store):
    query = "query=mutation%7BreloadWorkspace%7B__typename%7D%7D"
    assert ask(store, f"/graphql?{query}", OWN)[0] == 403
