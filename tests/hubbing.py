"""A small Hugging Face hub on loopback, which takes what is published and gives it back.

It speaks the calls that `huggingface_hub` makes: create a repository and a branch, tell of one,
check a card, preupload, the LFS batch, LFS objects whole and in parts, commit, and resolve.
"""

import base64
import hashlib
import json
import re
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

LARGE = (".safetensors", ".png")  # which the hub takes as LFS objects
WRITE, READ = "hf_" + "w" * 34, "hf_" + "r" * 34  # tokens
CALLS = {
    "create": r"/api/repos/create",
    "validate": r"/api/validate-yaml",
    "branch": r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<revision>[^/]+)",
    "preupload": r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)",
    "commit": r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)",
    "info": r"/api/models/(?P<repo>[^/]+/[^/]+?)(/revision/(?P<revision>[^/]+))?",
    "batch": r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
    "part": r"/lfs/(?P<oid>[0-9a-f]{64})/(?P<number>\d+)",
    "lfs": r"/lfs/(?P<oid>[0-9a-f]{64})",
    "resolve": r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)",
}


def digest(*parts):
    return hashlib.sha1(b"".join(parts)).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a dict from branches to lists of commits.

    A commit is a dict: `oid`, `summary`, `files` (bytes by name). `faults` has lists by the name of
    a call, in which each call meets the next: a status, a status with words, "cut" (the connection
    ends in the middle of what is sent), or a function, which is called and may return one of these.
    `asked` keeps the calls' names.

    Args:
        part: Bytes of a part of a large object; whole unless said.
    """

    daemon_threads = True

    def __init__(self, part=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.private, self.objects, self.parts = {}, {}, {}, {}
        self.faults, self.asked, self.arrived, self.part = {}, [], [], part

    def handle_error(self, *_):
        """Clients go away in the middle."""

    def make(self, repo, private=None, **files):
        first = {".gitattributes": b"*.safetensors filter=lfs\n", **files}
        self.repos[repo] = {"main": [{"oid": digest(repo.encode()), "summary": "", "files": first}]}
        self.private[repo] = private

    def commits(self, repo="me/model", revision="main"):
        return self.repos[repo][revision]

    def files(self, repo="me/model", revision="main"):
        """The files of the last commit, without the hub's own."""
        last = self.commits(repo, revision)[-1]["files"]
        return {name: content for name, content in last.items() if name != ".gitattributes"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        path = unquote(self.path.partition("?")[0])
        found = ((call, re.fullmatch(one, path)) for call, one in CALLS.items())
        call, match = next(((call, m) for call, m in found if m), ("unknown", None))
        self.server.asked.append(call)
        faults = self.server.faults.get(call)
        fault = faults.pop(0) if faults else None
        if callable(fault):
            fault = fault()
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut":
            self.rfile.read(length // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.body = self.rfile.read(length)
        if fault is not None:
            status, words = fault if isinstance(fault, tuple) else (fault, "no")
            self.send(status, {"error": words})
        elif match is None:
            self.send(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
        else:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token not in (WRITE, READ) and call not in ("lfs", "part"):
                words = {"X-Error-Message": "Invalid credentials in Authorization header"}
                self.send(401, {"error": "Invalid credentials"}, words)
            elif token == READ and call in ("create", "branch", "preupload", "commit"):
                self.send(403, {"error": "You don't have the rights to do this"})
            else:
                getattr(self, call)(**match.groupdict())

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def create(self):
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        known = repo in self.server.repos
        if not known:
            self.server.make(repo, asked.get("visibility") == "private")
        self.send(409 if known else 200, {"url": f"{self.server.url}/{repo}"})

    def validate(self):
        bad = b"base_model: /" in self.body
        self.send(
            400 if bad else 200, {"errors": [{"message": "no such base_model"}] if bad else []}
        )

    def branch(self, repo, revision):
        branches = self.server.repos[repo]
        known = revision in branches
        branches.setdefault(revision, list(branches["main"]))
        self.send(409 if known else 200, {})

    def info(self, repo, revision):
        if repo not in self.server.repos:
            self.send(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
            return
        last = self.server.commits(repo, revision or "main")[-1]
        siblings = [{"rfilename": name} for name in last["files"]]
        self.send(200, {"id": repo, "sha": last["oid"], "siblings": siblings})

    def preupload(self, repo, revision):
        there = self.server.commits(repo, revision)[-1]["files"]
        found = []
        for one in json.loads(self.body)["files"]:
            name, content = one["path"], there.get(one["path"])
            large = name.endswith(LARGE)
            known = None
            if content is not None:
                blob = digest(b"blob %d\0" % len(content), content)
                known = hashlib.sha256(content).hexdigest() if large else blob
            mode = "lfs" if large else "regular"
            found.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        self.send(200, {"files": found})

    def batch(self, repo):
        objects = []
        for one in json.loads(self.body)["objects"]:
            href = f"{self.server.url}/lfs/{one['oid']}"
            upload, part = {"href": href}, self.server.part
            if part is not None and one["size"] > part:
                count = -(-one["size"] // part)
                parts = {str(number): f"{href}/{number}" for number in range(1, count + 1)}
                upload["header"] = {"chunk_size": str(part), **parts}
            known = one["oid"] in self.server.objects
            objects.append(dict(one) if known else {**one, "actions": {"upload": upload}})
        self.send(200, {"objects": objects, "transfer": "basic"})

    def part(self, oid, number):
        self.server.parts[oid, int(number)] = self.body
        self.send(200, {}, {"ETag": f'"{digest(self.body)}"'})

    def lfs(self, oid):
        if self.command == "POST":  # all parts have come
            asked = json.loads(self.body)["parts"]
            parts = [self.server.parts[oid, one["partNumber"]] for one in asked]
            assert [one["etag"].strip('"') for one in asked] == [digest(part) for part in parts]
            self.body = b"".join(parts)
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.objects[oid] = self.body
        self.server.arrived.append(oid)
        self.send(200, {})

    def commit(self, repo, revision):
        commits = self.server.commits(repo, revision)
        files, head = dict(commits[-1]["files"]), None
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                head = value
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif files.pop(value["path"], None) is None:
                self.send(404, {"error": "A file with this name doesn't exist"})
                return
        if head.get("parentCommit", commits[-1]["oid"]) != commits[-1]["oid"]:
            self.send(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        oid = digest(commits[-1]["oid"].encode(), self.body)
        commits.append({"oid": oid, "summary": head["summary"], "files": files})
        self.send(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid})

    def resolve(self, repo, revision, name):
        branches = self.server.repos.get(repo, {})
        every = [one for commits in branches.values() for one in commits]
        found = branches.get(revision, [one for one in every if one["oid"] == revision])
        content = found[-1]["files"].get(name) if found else None
        if content is None:
            self.send(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{digest(content)}"', "X-Repo-Commit": found[-1]["oid"]}
        self.send(200, content, headers)

    def send(self, status, content, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if body is content else "application/json"
        found = {"Content-Length": str(len(body)), "Content-Type": kind, **(headers or {})}
        for name, value in found.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def hubbing(monkeypatch, part=None):
    """A hub, which this process and those that it starts take for the real one, with a token."""
    from huggingface_hub import constants

    server = Hub(part)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for name, value in {
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": WRITE,
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
