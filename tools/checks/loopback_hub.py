"""A hub on the loopback device that serves models from memory, for the tools that check mxlm beside huggingface_hub."""
import hashlib, http.server, json, os, threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def is_lfs(name):
    return name.endswith((".safetensors", ".bin"))


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        for repo, files in self.server.repos.items():
            if path.startswith((f"/api/models/{repo}", f"/{repo}/resolve/", f"/cdn/{repo}/")):
                return self.serve(path, repo, files)
        return self.reply(404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def serve(self, path, repo, files):
        api, resolve = f"/api/models/{repo}", f"/{repo}/resolve/"
        if path.startswith(f"{api}/tree/"):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": git_hash(d)}
                    | ({"lfs": {"oid": hashlib.sha256(d).hexdigest(), "size": len(d), "pointerSize": 134}}
                       if is_lfs(n) else {}) for n, d in files.items()]
            return self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            info = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
                    "siblings": [{"rfilename": n, "size": len(d)} for n, d in files.items()]}
            return self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        if path.startswith(resolve):
            name = path[len(resolve):].split("/", 1)[1]
            if name not in files:
                return self.reply(404, X_Error_Code="EntryNotFound")
            data = files[name]
            if is_lfs(name):
                store = f"http://localhost:{self.server.server_address[1]}/cdn/{repo}/{name}"  # another host
                return self.reply(302, X_Repo_Commit=COMMIT, X_Linked_Size=str(len(data)), Location=store,
                                  X_Linked_Etag=f'"{hashlib.sha256(data).hexdigest()}"')
            return self.reply(200, data, X_Repo_Commit=COMMIT, ETag=f'"{git_hash(data)}"')
        if path.startswith("/cdn/"):
            return self.reply(200, files[path.removeprefix(f"/cdn/{repo}/")], ETag='"of the store, no hash"')
        return self.reply(404, X_Error_Code="RepoNotFound")


def serve(repos):
    """Serves {id: {name: bytes}} until the program ends; returns the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repos = repos
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def environment(home, endpoint, **more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    return kept | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1",
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | more
