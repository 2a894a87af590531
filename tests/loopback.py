"""A server on this machine that misbehaves as it is told to."""

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST = "Sat, 01 Jan 2022 00:00:00 GMT"


class Server(ThreadingHTTPServer):
    """Serves `files`, with ranges; `plans` says what is done with the next requests of a path.

    A status refuses, with `headers`; "break" ends after half of what was asked for, "stall" waits
    there for `going`; "no ranges", "no length", "page" and "cut" (half, as if that were all) too.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files, self.plans, self.headers = {}, defaultdict(list), {}
        self.version, self.asked = FIRST, []
        self.stalled, self.going = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.going.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """A client that is gone is no news."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def begin(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range", "")
        server.asked.append((self.path, asked))
        plan = server.plans[self.path].pop(0) if server.plans[self.path] else ""
        content = server.files.get(self.path)
        if isinstance(plan, int):
            return self.begin(plan, **server.headers, Content_Length=0)
        if content is None:
            return self.begin(404, Content_Length=0)
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        if plan == "no ranges" or self.headers.get("If-Range", server.version) != server.version:
            start = 0
        if start and start >= len(content):
            return self.begin(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        rest = content[start:] if plan != "cut" else content[: len(content) // 2]
        headers = {"Last_Modified": server.version, "Content_Length": len(rest)}
        headers |= {"Content_Type": "text/html; charset=utf-8"} if plan == "page" else {}
        if plan == "no length":
            del headers["Content_Length"]
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.begin(206 if start else 200, **headers)
        if plan in ("break", "stall"):
            self.wfile.write(rest[: len(rest) // 2])
            if plan == "stall":
                server.stalled.set()
                server.going.wait(20)
            self.close_connection = True
            return None
        return self.wfile.write(rest)
