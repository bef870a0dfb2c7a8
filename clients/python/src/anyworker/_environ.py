"""The request of a client as python-engineio's ASGI driver would have told it."""

from __future__ import annotations

import json
from typing import Any


def environ_of(text: str) -> dict[str, Any]:
    """WSGI keys and ``asgi.scope``, from what the worker has written about a request."""
    told = json.loads(text)
    path, query = told.get("path", "/"), told.get("query", "")
    scheme, version = told.get("scheme", "http"), told.get("http_version", "1.1")
    headers: list[list[str]] = told.get("headers", [])
    host, port = told.get("client", ["", 0])
    is_websocket = told.get("transport") == "websocket"
    scope = {
        "type": "websocket" if is_websocket else "http",
        "asgi": {"version": "3.0"},
        "http_version": version,
        "method": "GET",
        "scheme": {"http": "ws", "https": "wss"}.get(scheme, scheme) if is_websocket else scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers],
        "client": (host, port),
        "server": ("anyworker", 0),
    }
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.async": True,
        "wsgi.run_once": False,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.url_scheme": scheme,
        "SERVER_SOFTWARE": "asgi",
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": f"{path}?{query}" if query else path,
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": f"HTTP/{version}",
        "SERVER_NAME": "asgi",
        "SERVER_PORT": "0",
        "REMOTE_ADDR": host,
        "REMOTE_HOST": host,
        "REMOTE_PORT": str(port),
        "asgi.scope": scope,
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
