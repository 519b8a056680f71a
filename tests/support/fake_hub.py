"""A Hugging Face hub of one folder on 127.0.0.1, with the few routes that `huggingface_hub` asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "c0ff"


@contextmanager
def serve(folder: Path, repo: str, gated: str = "nobody/gated") -> Iterator[str]:
    """Serve `folder` as the repository `repo`; `gated` exists too but asks for a log-in. Yields the address."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.split("?")[0]
            if path == "/robots.txt":
                return self.reply(b"", body)
            if path.startswith(f"/api/models/{gated}"):
                return self.refuse(403, "GatedRepo")
            if not path.startswith((f"/api/models/{repo}", f"/{repo}/resolve/")):
                return self.refuse(404, "RepoNotFound")
            if path.startswith("/api/") and "/revision/" in path and path.rsplit("/", 1)[1] not in ("main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
            if "/tree/" in path:
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                return self.reply(json.dumps(tree).encode(), body)
            if path.startswith("/api/"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                info = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
                return self.reply(json.dumps(info).encode(), body)
            name = path.rsplit("/", 1)[1]
            if name not in files:
                return self.refuse(404, "EntryNotFound")
            return self.reply(files[name], body, {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"'})

        def reply(self, data: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(200)
            for key, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
