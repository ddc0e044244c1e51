"""Dagster's webserver, closed to other web pages, with the reports of the store.

`sot ui` starts it in the place of `dagster-webserver` (`python -m sot_pipeline.defs.webserver`).
It answers on 127.0.0.1 without a password, so what a browser is made to send by some other page
must not count as the user's own doing:

- A request for a host name that is not this machine's is refused: a foreign name that was pointed
  at 127.0.0.1 (DNS rebinding) would let its page read everything.
- A request that another page sends is refused, and so is a GraphQL request by GET, which a link
  or an image can send: `GET /graphql?query=mutation{...}` would start runs.

A report is served from the UI's own address, because a browser opens no `file://` link from a
page; `Content-Security-Policy: sandbox` takes away from it whatever that address could do.
"""

import os
import re
import stat
from pathlib import Path

import dagster_webserver.app
from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sot_pipeline.defs.home import Home
from sot_pipeline.defs.report_links import REPORT, REPORT_ADDRESS

THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")
HOSTS_VARIABLE = "SOT_UI_HOSTS"  # further names, comma-separated: of a proxy before the UI
ASSET = re.compile(r"[a-z][a-z0-9_]{0,99}")
FINGERPRINT = re.compile(r"[0-9a-f]{32}")
# scripts run, in an origin of their own; nothing is fetched, sent or embedded
REPORT_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; sandbox allow-scripts allow-downloads allow-modals"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OwnPagesOnly:
    """Refuses what a page of another origin, or under another host name, sends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            refused = why_refused(HTTPConnection(scope))
            if refused is not None:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008, "reason": refused})
                    return
                await PlainTextResponse(refused + "\n", 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def why_refused(request: HTTPConnection) -> str | None:
    """Why a request is not the user's own; None if it is."""
    host = request.headers.get("host", "")
    name = _without_port(host)
    if name not in allowed_hosts():
        return (
            f"the Dagster UI answers to {', '.join(allowed_hosts())}, not to {name!r}; "
            f"name a proxy's host in {HOSTS_VARIABLE}"
        )
    origin = request.headers.get("origin")
    if origin is not None and not _is_own(origin.lower().partition("://")[2], host.lower()):
        return (
            f"a page of {origin} may not use the Dagster UI; if that is a proxy in front of it, "
            f"name its host in {HOSTS_VARIABLE}"
        )
    from_elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    # a link from elsewhere may open a page, and nothing else
    if origin is None and from_elsewhere and request.headers.get("sec-fetch-mode") != "navigate":
        return "another site's page may not use the Dagster UI"
    # the raw parts: a URL that is put together again may end at a "#"
    if request.scope["path"].rstrip("/").endswith("/graphql") and "query" in request.query_params:
        return "GraphQL is asked by POST"
    return None


def _without_port(host: str) -> str:
    host = host.lower()
    return host.rpartition(":")[0] if re.search(r":\d+$", host) else host


def _is_own(origin: str, host: str) -> bool:
    """Whether a page comes from the host that it asks, or from a proxy that is named; a proxy may
    put another name into the request than the browser knows."""
    return origin == host or _without_port(origin) in _named_hosts()


def allowed_hosts() -> tuple[str, ...]:
    return (*THIS_MACHINE, *_named_hosts())


def _named_hosts() -> tuple[str, ...]:
    named = os.environ.get(HOSTS_VARIABLE, "").split(",")
    return tuple(_without_port(host.strip()) for host in named if host.strip())


def report_response(store: Path, asset: str, fingerprint: str) -> Response:
    """A report of the store; whatever else is asked for, there is none."""
    html = read_report(store, asset, fingerprint)
    if html is None:
        told = "no such report: it may have left the store (`sot gc`); make it again"
        return PlainTextResponse(told + "\n", 404, headers={"X-Content-Type-Options": "nosniff"})
    return Response(html, media_type="text/html", headers=REPORT_HEADERS)


def read_report(store: Path, asset: str, fingerprint: str) -> bytes | None:
    """`store/ASSET/FINGERPRINT/report.html`: names of an artefact's form only, and no link."""
    if not ASSET.fullmatch(asset) or not FINGERPRINT.fullmatch(fingerprint):
        return None
    folder = store / asset / fingerprint
    path = folder / REPORT
    try:
        if folder.resolve(strict=True) != store.resolve(strict=True) / asset / fingerprint:
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read()
    except OSError:
        return None


class GuardedWebserver(DagsterWebserver):
    """Dagster's own, with the reports and the guard before everything."""

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(OwnPagesOnly), *super().build_middleware()]

    def build_routes(self) -> list:
        def report(request: Request) -> Response:
            return report_response(Home().store, **request.path_params)

        return [Route(REPORT_ADDRESS, report, methods=["GET"]), *super().build_routes()]


if __name__ == "__main__":
    dagster_webserver.app.DagsterWebserver = GuardedWebserver
    main()
