"""A Hub on the loopback address: the endpoints that huggingface_hub needs to create, commit and fetch."""

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repo import FIRST, Blob, Repo
from huggingface_hub import ModelCard

LFS_SUFFIXES = (".safetensors", ".png")
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
API = "/api/(?:models|spaces)"


class Refused(Exception):
    def __init__(self, status, code="", message=""):
        self.status, self.code, self.message = status, code, message


class Hub(ThreadingHTTPServer):
    """`tokens`: token to the user it belongs to. `drop`: (regex of "METHOD path", when) of requests to break.

    A request is broken "before" it is read to its end, or "after" it was carried out but not answered; each
    entry breaks one request. `answers`: (regex, (status, body, headers)) of requests to answer so instead; a
    body of None has no end, and `sent` counts its bytes. `calls` lists every request, `unknown` those that no
    endpoint takes; `made` is what each repository was asked for with.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.storage = (
            f"http://localhost:{self.server_port}"  # another host, as the Hub's is: no token goes there
        )
        self.tokens = {"hf_user": "user", "hf_other": "other"}
        self.repos, self.lfs, self.made = {}, {}, {}
        self.drop, self.calls, self.unknown = [], [], []
        self.answers, self.sent = [], 0
        self.lock = threading.RLock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def files(self, name, ref="main"):
        repo = self.repos[name]
        return {path: blob.content for path, blob in repo.commits[repo.refs[ref]].items()}

    def put(self, name, private=False, **files):
        """A repository with these files, `__` in a name for its dot."""
        with self.lock:
            repo = self.repos.setdefault(name, Repo(name, private))
            contents = {path.replace("__", "."): content for path, content in files.items()}
            repo.commit("main", {path: Blob(content) for path, content in (FIRST | contents).items()})

    def dropping(self, request, when):
        for entry in self.drop:
            if entry[1] == when and re.search(entry[0], request):
                self.drop.remove(entry)
                return True
        return False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self):
        hub, self.address = self.server, urlsplit(self.path)
        request, length = f"{self.command} {self.path}", int(self.headers.get("Content-Length") or 0)
        hub.calls.append(request)
        if hub.dropping(request, "before"):
            self.rfile.read(length // 2)
            return self.hang_up()
        body = self.rfile.read(length)
        told = next((told for pattern, told in hub.answers if re.search(pattern, request)), None)
        if told and told[1] is None:
            return self.send_without_end(told[0])
        try:
            answer = told or self.answer(body)
        except Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            content = json.dumps({"error": refused.message, "errors": [{"message": refused.message}]})
            answer = (refused.status, content.encode(), {k: v for k, v in headers.items() if v})
        if hub.dropping(request, "after"):
            return self.hang_up()
        status, content, headers = answer if isinstance(answer, tuple) else (200, answer, {})
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        # a HEAD of nothing says nothing of the length, unless its headers do
        length = {} if told and self.command == "HEAD" else {"Content-Length": len(content)}
        for name, value in (length | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_without_end(self, status):
        self.send_response(status)
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b" " * 4096)
                self.server.sent += 4096
        except OSError:  # the client has hung up
            pass

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def log_message(self, *_):
        pass

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, body):
        for method, pattern, endpoint in ENDPOINTS:
            found = re.fullmatch(pattern, unquote(self.address.path))
            if found and self.command in method:
                with self.server.lock:
                    return endpoint(self, body, **found.groupdict())
        self.server.unknown.append(f"{self.command} {self.path}")
        raise Refused(404)

    def user(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.server.tokens:
            raise Refused(401, message="Invalid credentials in Authorization header")
        return self.server.tokens.get(token)

    def visible(self, name):
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and self.user() != name.split("/")[0]):
            raise Refused(404 if self.user() else 401, "RepoNotFound", "Repository not found")
        return repo

    def writable(self, name):
        repo = self.visible(name)
        if self.user() is None:
            raise Refused(401, message="Invalid username or password.")
        if self.user() != name.split("/")[0]:
            raise Refused(403, message=f"You don't have the rights to write to {name}")
        return repo

    def tree(self, repo, ref):
        sha = repo.refs.get(ref, ref)
        if sha not in repo.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {ref}")
        return sha, repo.commits[sha]

    # endpoints

    def create(self, body):
        told = json.loads(body)
        user = self.user()
        if user is None:
            raise Refused(401, message="Invalid username or password.")
        name = f"{told.get('organization') or user}/{told['name']}"
        if name.split("/")[0] != user:
            raise Refused(403, message="You don't have the rights to create a model under this namespace")
        space = "spaces/" if told.get("type") == "space" else ""
        url = {"url": f"{self.server.endpoint}/{space}{name}"}
        if name in self.server.repos:
            return 409, json.dumps({"error": "You already created this model repo", **url}).encode(), {}
        private = told.get("private", told.get("visibility") == "private")
        self.server.repos[name] = Repo(name, bool(private))
        self.server.repos[name].commit("main", {k: Blob(v) for k, v in FIRST.items()})
        self.server.made[name] = told
        return {**url, "name": name}

    def info(self, body, repo, ref="main"):
        found = self.visible(repo)
        sha, files = self.tree(found, ref)
        siblings = [{"rfilename": path} for path in files]
        return {"id": repo, "sha": sha, "private": found.private, "siblings": siblings, "tags": []}

    def listing(self, body, repo, ref, folder=None):
        _, files = self.tree(self.visible(repo), ref)
        rows = []
        for path, blob in files.items():
            row = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
            if blob.lfs:
                row["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 120}
            rows.append(row)
        return rows

    def branch(self, body, repo, ref):
        found = self.writable(repo)
        if ref in found.refs:
            raise Refused(409, message="Reference already exists")
        found.refs[ref] = found.refs["main"]
        return {}

    def preupload(self, body, repo, ref):
        found = self.visible(repo) if self.pull_request() else self.writable(repo)
        _, files = self.tree(found, ref)
        rows = []
        for told in json.loads(body)["files"]:
            path = told["path"]
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            old = files[path].etag if path in files else None
            rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": old})
        return {"files": rows}

    def batch(self, body, repo):
        self.writable(repo)
        objects = []
        for told in json.loads(body)["objects"]:
            row = {"oid": told["oid"], "size": told["size"]}
            if told["oid"] not in self.server.lfs:
                href = f"{self.server.endpoint}/lfs/{told['oid']}"
                verify = f"{self.server.endpoint}/lfs-verify"
                row["actions"] = {"upload": {"href": href, "header": {}}, "verify": {"href": verify}}
            objects.append(row)
        return {"transfer": "basic", "objects": objects}

    def upload(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, message="the content does not have this hash")
        self.server.lfs[oid] = body
        return b""

    def verify(self, body):
        told = json.loads(body)
        if len(self.server.lfs.get(told["oid"], b"")) != told["size"]:
            raise Refused(404, message="not uploaded")
        return {}

    def commit(self, body, repo, ref):
        found = self.visible(repo) if self.pull_request() else self.writable(repo)
        files = dict(self.tree(found, ref)[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.lfs:
                    raise Refused(400, message="LFS pointer pointed to a file that does not exist")
                files[value["path"]] = Blob(self.server.lfs[value["oid"]], lfs=True)
            elif line["key"] != "header":
                raise Refused(400, message=f"unknown operation {line['key']}")
        url = f"{self.server.endpoint}/{repo}"
        if self.pull_request():
            number = 1 + sum(name.startswith("refs/pr/") for name in found.refs)
            sha = found.commit(f"refs/pr/{number}", files)
            pull = f"{url}/discussions/{number}"
            return {"commitUrl": f"{url}/commit/{sha}", "commitOid": sha, "pullRequestUrl": pull}
        sha = found.commit(ref, files)
        return {"commitUrl": f"{url}/commit/{sha}", "commitOid": sha}

    def pull_request(self):
        return "create_pr" in parse_qs(self.address.query)

    def resolve(self, body, repo, ref, path):
        sha, files = self.tree(self.visible(repo), ref)
        if path not in files:
            return 404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
        blob = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.etag}"'}
        if not blob.lfs:
            return 200, blob.content, headers
        linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": len(blob.content)}
        return 302, b"", {**headers, **linked, "Location": f"{self.server.storage}/lfs/{blob.sha256}"}

    def download(self, body, oid):
        return 200, self.server.lfs[oid], {"ETag": f'"{oid}"'}

    def validate(self, body):
        try:
            ModelCard(json.loads(body)["content"])
        except Exception as error:
            raise Refused(400, message=str(error)) from None
        return {"warnings": [], "errors": []}


ENDPOINTS = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", f"{API}/{REPO}", Handler.info),
    ("GET", f"{API}/{REPO}/revision/(?P<ref>.+)", Handler.info),
    ("GET", f"{API}/{REPO}/tree/(?P<ref>[^/]+)(?P<folder>/.*)?", Handler.listing),
    ("POST", f"{API}/{REPO}/branch/(?P<ref>.+)", Handler.branch),
    ("POST", f"{API}/{REPO}/preupload/(?P<ref>.+)", Handler.preupload),
    ("POST", f"{API}/{REPO}/commit/(?P<ref>.+)", Handler.commit),
    ("POST", f"(?:/spaces)?/{REPO}.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.upload),
    ("GET HEAD", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.download),
    ("POST", "/lfs-verify", Handler.verify),
    ("GET HEAD", f"/{REPO}/resolve/(?P<ref>refs/pr/\\d+|[^/]+)/(?P<path>.+)", Handler.resolve),
]
