"""Guard before the page's routes: names, origins, sessions, sizes, and headers."""

import asyncio
import logging
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neurovocal.engine.support.endpoints import Address
from neurovocal.engine.support.text import printable
from neurovocal.plugins.web.access import (
    SECURITY_HEADERS,
    Access,
    AttemptLimit,
    Sessions,
    is_known_host,
    is_same_origin,
)

log = logging.getLogger("neurovocal")

_MOST_FORM_BYTES = 8192
_MOST_BODY_BYTES = 8 * 2**20
_REQUEST_S = 60.0
# What may be seen before logging in: the form, and files that everybody has.
_OPEN_PATHS = frozenset({"/login", "/logout", "/favicon.ico"})
_OPEN_ENDINGS = (".css", ".js", ".svg", ".png", ".woff2", ".webmanifest")
_RESPONSE_STARTS = ("http.response.start", "websocket.http.response.start")
_WRONG = "That is not right."
_TOO_MANY = "Too many attempts: wait {seconds:.0f} s."


class Guard:
    """ASGI application before the routes: refuses what may not reach them.

    Parameters
    ----------
    app : ASGI application
        The routes.
    address : Address
        Where the page is bound.
    access : Access
        Who may open it.
    login_page : str
        HTML of the form, with ``{{problem}}`` where a sentence is put.
    """

    def __init__(
        self, app: ASGIApp, address: Address, access: Access, login_page: str
    ) -> None:
        self._app = app
        self._address = address
        self._access = access
        self._login_page = login_page
        self._attempts = AttemptLimit()
        self._sessions = Sessions()
        # A cookie belongs to a host, whatever the port: pages differ in its name.
        self._cookie = f"neurovocal_{address.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            return
        is_http = scope["type"] == "http"

        async def send_guarded(message: Message) -> None:
            if message["type"] in (
                "http.response.start",
                "websocket.http.response.start",
            ):
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None and is_http and scope["path"] == "/login":
                refusal = await self._log_in(Request(scope, receive))
            elif refusal is None and is_http and scope["path"] == "/logout":
                refusal = self._log_out(Headers(scope=scope))
            if refusal is not None:
                await self._answer(refusal, scope, receive, send_guarded)
            elif is_http:
                async with asyncio.timeout(_REQUEST_S):
                    await self._app(scope, _limited(receive), send_guarded)
            else:
                await self._app(scope, receive, send_guarded)
        except BodyTooLargeError:
            too_large = JSONResponse({"error": "the request is too large"}, 413)
            await too_large(scope, receive, send_guarded)
        except TimeoutError:
            log.warning("page: a request took longer than %.0f s", _REQUEST_S)
        except Exception as error:
            # The browser has its answer already.
            log.warning("page: '%s' failed: %r", printable(scope["path"]), error)

    async def _answer(
        self, response: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "websocket":
            # Starlette refuses by the same events as it answers HTTP requests.
            await receive()
        await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return why a request does not reach the routes; None: it may."""
        headers = Headers(scope=scope)
        host = self._host(headers)
        access = self._access
        if not access.credentials.are_needed and not is_known_host(host, self._address):
            return _refused(
                403,
                f"this page answers to its own address, http://127.0.0.1:"
                f"{self._address.port}/, not to the name in your request; with a token "
                "it answers to any name (docs/how-to/page.md)",
            )
        origin = headers.get("origin")
        only_reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if not (origin is None or only_reads or is_same_origin(origin, host)):
            return _refused(403, "the request comes from another site")
        path = scope["path"]
        is_open = path in _OPEN_PATHS or path.endswith(_OPEN_ENDINGS)
        if is_open and scope["type"] == "http" and not path.startswith("/api/"):
            return None
        return self._session_refusal(scope, headers)

    def _session_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if not self._access.credentials.are_needed:
            return None
        cookie = self._cookie_of(headers)
        if cookie is not None and self._sessions.is_valid(cookie):
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            client = self._client(scope, headers)
            wait_s = self._attempts.wait_s(client)
            if wait_s:
                return _too_many(wait_s)
            if self._access.credentials.accept_token(token.strip()):
                return None
            self._note_failure(client)
        if scope["type"] == "http" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("login", 303)
        return _refused(401, "log in first")

    async def _log_in(self, request: Request) -> Response:
        """Show the form, or begin a session for the right credentials."""
        if not self._access.credentials.are_needed:
            return RedirectResponse("./", 303)
        if request.method in ("GET", "HEAD"):
            return HTMLResponse(self._form(""))
        if request.method != "POST":
            return _refused(405, "send the form by POST")
        client = self._client(request.scope, request.headers)
        wait_s = self._attempts.wait_s(client)
        if wait_s:
            sentence = _TOO_MANY.format(seconds=wait_s)
            headers = {"Retry-After": str(round(wait_s) or 1)}
            return HTMLResponse(self._form(sentence), 429, headers)
        given = await _form_of(request)
        credentials = self._access.credentials
        if credentials.accept_token(given.get("token", "")) | credentials.accept_user(
            given.get("user", ""), given.get("password", "")
        ):
            response = RedirectResponse("./", 303)
            response.set_cookie(
                self._cookie,
                self._sessions.begin(),
                path=None,  # of the form's folder: a prefix of a proxy stays
                secure=self._is_secure(request.headers),
                httponly=True,
                samesite="strict",
            )
            return response
        self._note_failure(client)
        return HTMLResponse(self._form(_WRONG), 401)

    def _log_out(self, headers: Headers) -> Response:
        cookie = self._cookie_of(headers)
        if cookie is not None:
            self._sessions.end(cookie)
        response = RedirectResponse("login", 303)
        response.delete_cookie(self._cookie, path="")
        return response

    def _form(self, problem: str) -> str:
        return self._login_page.replace("{{problem}}", problem)

    def _note_failure(self, client: str) -> None:
        self._attempts.note_failure(client)
        log.warning("page: wrong credentials from %s", client)

    def _cookie_of(self, headers: Headers) -> str | None:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return None
        morsel = cookies.get(self._cookie)
        return None if morsel is None else morsel.value

    def _host(self, headers: Headers) -> str:
        if self._access.behind_proxy and "x-forwarded-host" in headers:
            return headers["x-forwarded-host"].split(",")[-1].strip()
        return headers.get("host", "")

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Return the address of the browser; that which the nearest proxy saw."""
        if self._access.behind_proxy and "x-forwarded-for" in headers:
            return headers["x-forwarded-for"].split(",")[-1].strip()
        client = scope.get("client")
        return client[0] if client else ""

    def _is_secure(self, headers: Headers) -> bool:
        if not self._access.behind_proxy:
            return False
        return headers.get("x-forwarded-proto", "").split(",")[-1].strip() == "https"


class BodyTooLargeError(Exception):
    """The body of a request is larger than any route takes."""


def _limited(receive: Receive) -> Receive:
    """Return `receive` with a limit of the body."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > _MOST_BODY_BYTES:
            raise BodyTooLargeError
        return message

    return receive_limited


async def _form_of(request: Request) -> dict[str, str]:
    """Return the fields of a small form; of a larger one, none."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _MOST_FORM_BYTES:
            return {}
        parts.append(part)
    text = b"".join(parts).decode("utf-8", "replace")
    try:
        fields: Iterable[tuple[str, list[str]]] = parse_qs(
            text, keep_blank_values=True, max_num_fields=10
        ).items()
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields}


def _refused(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)


def _too_many(wait_s: float) -> Response:
    sentence = _TOO_MANY.format(seconds=wait_s)
    headers = {"Retry-After": str(round(wait_s) or 1)}
    return JSONResponse({"error": sentence}, 429, headers)
