"""Stands for Grafana where its image cannot be had: serves what the provisioned files say, as Grafana would name it.

Fails at the start if a file is missing, unreadable or no JSON. `/api/health` is 200 once the data source answers.
"""

import glob
import http.server
import json
import os
import re
import urllib.request

PROVISIONING = "/etc/grafana/provisioning"


def provisioned(kind, pattern):
    """What `pattern` matches in the provisioning files of this kind; there must be one."""
    texts = [open(path, encoding="utf-8").read() for path in glob.glob(f"{PROVISIONING}/{kind}/*.yml")]
    found = [match.group(1) for text in texts for match in re.finditer(pattern, text)]
    assert found, f"{PROVISIONING}/{kind} has no {pattern}"
    return found


SOURCE = provisioned("datasources", r'url: "([^"]+)"')[0]
PATHS = [path for folder in provisioned("dashboards", r"path: ([^\s}]+)") for path in glob.glob(f"{folder}/*.json")]
DASHBOARDS = {board["uid"]: board for board in (json.load(open(path, encoding="utf-8")) for path in PATHS)}
assert DASHBOARDS, "no dashboard is provisioned"
HOME = os.environ.get("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH")
assert HOME in PATHS, f"the home dashboard {HOME} is not one of {PATHS}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Three pages of Grafana's API, and the address of each dashboard."""

    def do_GET(self):
        uid = self.path.rsplit("/", 1)[-1]
        if self.path == "/api/health":
            self.answer(200, {"database": "ok", "source": self.ask("/-/ready")})
        elif self.path.startswith("/api/dashboards/uid/") and uid in DASHBOARDS:
            self.answer(200, {"dashboard": DASHBOARDS[uid], "meta": {"provisioned": True, "url": f"/d/{uid}"}})
        elif self.path.startswith("/d/") and uid in DASHBOARDS:
            self.answer(200, {"title": DASHBOARDS[uid]["title"]})
        elif self.path.startswith("/api/datasources/proxy/1/"):
            self.answer(200, json.loads(self.ask(self.path.removeprefix("/api/datasources/proxy/1"))))
        else:
            self.answer(404, {"message": "Not found"})

    @staticmethod
    def ask(path):
        """What the data source answers."""
        return urllib.request.urlopen(SOURCE + path, timeout=4).read().decode()

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("0.0.0.0", 3000), Handler).serve_forever()
