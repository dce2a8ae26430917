"""A local HTTP server with the part of the Hugging Face hub's protocol that downloads of dataset files need.

Example:
    with HubServer("owner/name", {"data/a.tar": b"..."}) as hub:
        subprocess.run([...], env=hub.environment(tmp_path))
"""

import hashlib
import json
import os
import threading
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Answer(Enum):
    """An answer of the hub: the file, or an error status with a code and a message."""

    FILE = (200, "", "")
    REPO_NOT_FOUND = (404, "RepoNotFound", "Repository not found")
    PRIVATE = (401, "RepoNotFound", "Invalid username or password.")
    GATED_NO_TOKEN = (401, "GatedRepo", "Access to this dataset is restricted.")
    GATED_NO_ACCESS = (403, "GatedRepo", "Access to this dataset is restricted.")
    BAD_TOKEN = (401, "", "Invalid credentials in Authorization header")
    FORBIDDEN = (403, "", "Your token lacks the permission")
    BROKEN = (500, "", "Internal error")


class HubServer:
    """A hub that serves the files of one dataset and records the requests.

    Attributes:
        answer: the answer to every request from now on.
        drop_once: cut the next download off halfway.
        requests: method, path and Range header of every request so far.
    """

    def __init__(self, repo: str, files: dict[str, bytes]) -> None:
        self.repo = repo
        self.files = files
        self.answer = Answer.FILE
        self.drop_once = False
        self.requests: list[tuple[str, str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def endpoint(self) -> str:
        """Return the address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of a process that uses this hub, with a cache below `home` and no credentials."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        return {
            **kept,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def count(self, method: str) -> int:
        """Return the number of requests with this method."""
        return sum(request[0] == method for request in self.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _entry(name: str, content: bytes) -> dict[str, object]:
    """Return the entry of a file in a tree listing."""
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _handler_of(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._respond(with_body=False)

        def do_GET(self) -> None:
            self._respond(with_body=True)

        def log_message(self, *_: object) -> None:
            """Do not print requests; they are recorded."""

        def _respond(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            wanted = self.headers.get("Range")
            hub.requests.append((self.command, path, wanted))
            if hub.answer is not Answer.FILE:
                self._refuse(*hub.answer.value)
                return
            prefix = f"/datasets/{hub.repo}/resolve/"
            api = f"/api/datasets/{hub.repo}"
            if path in {api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"}:
                self._send_json({"id": hub.repo, "sha": COMMIT})
                return
            if path == f"{api}/tree/{COMMIT}":
                self._send_json([_entry(name, content) for name, content in sorted(hub.files.items())])
                return
            if not path.startswith(prefix):
                self._refuse(*Answer.REPO_NOT_FOUND.value)
                return
            revision, _, name = path.removeprefix(prefix).partition("/")
            if revision not in {"main", COMMIT}:
                self._refuse(404, "RevisionNotFound", "Revision not found")
            elif name not in hub.files:
                self._refuse(404, "EntryNotFound", "Entry not found")
            else:
                self._send(hub.files[name], wanted, with_body)

        def _send(self, content: bytes, wanted: str | None, with_body: bool) -> None:
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            body = content[start:]
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if with_body and hub.drop_once:
                hub.drop_once = False
                self.close_connection = True
                body = body[: len(body) // 2]
            if with_body:
                self.wfile.write(body)

        def _send_json(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler
