#!/usr/bin/env python3
"""Checks that mxlm and huggingface_hub read each other's cache, with no network.

A server on the loopback device plays the hub with one repository, tester/booklet-7m, made of models/booklet-7m. Then
1. `mxlm fetch` fills a cache; huggingface_hub finds the model in it (snapshot_download and hf_hub_download with
   local_files_only, scan_cache_dir), and transformers loads its configuration and weights;
2. huggingface_hub's snapshot_download fills another cache; mxlm, offline, evaluates the model from it, with the same
   figures as from the folder.

Usage: tools/check_hub_cache.py [path of mxlm]     (needs huggingface_hub, transformers, torch; the versions are printed)
"""
import hashlib, http.server, json, os, pathlib, subprocess, sys, tempfile, threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
MXLM = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build/release/mxlm")
MODEL = ROOT / "models/booklet-7m"
REPO = "tester/booklet-7m"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {p.name: p.read_bytes() for p in sorted(MODEL.iterdir()) if p.is_file()}


def is_lfs(name):
    return name.endswith(".safetensors")


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
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
        api, resolve = f"/api/models/{REPO}", f"/{REPO}/resolve/"
        if path.startswith(f"{api}/tree/"):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": git_hash(d)}
                    | ({"lfs": {"oid": hashlib.sha256(d).hexdigest(), "size": len(d), "pointerSize": 134}}
                       if is_lfs(n) else {}) for n, d in FILES.items()]
            return self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            info = {"id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
                    "siblings": [{"rfilename": n, "size": len(d)} for n, d in FILES.items()]}
            return self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        if path.startswith(resolve):
            name = path[len(resolve):].split("/", 1)[1]
            if name not in FILES:
                return self.reply(404, X_Error_Code="EntryNotFound")
            data = FILES[name]
            if is_lfs(name):
                store = f"http://localhost:{self.server.server_address[1]}/cdn/{name}"  # another host
                return self.reply(302, X_Repo_Commit=COMMIT, X_Linked_Size=str(len(data)), Location=store,
                                  X_Linked_Etag=f'"{hashlib.sha256(data).hexdigest()}"')
            return self.reply(200, data, X_Repo_Commit=COMMIT, ETag=f'"{git_hash(data)}"')
        if path.startswith("/cdn/"):
            return self.reply(200, FILES[path[5:]], ETag='"of the store, no hash"')
        return self.reply(404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


def environment(home, endpoint, **more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    return kept | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1",
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | more


def python(code, env):
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, text=True, stdout=subprocess.PIPE).stdout


def figures(model, env, folder):
    out = pathlib.Path(folder) / "out.json"
    subprocess.run([MXLM, "eval", model, "--quiet", "--max-windows", "2", "--json", str(out)], env=env, check=True,
                   stdout=subprocess.DEVNULL)
    run = json.loads(out.read_text())["runs"][0]
    return run["model"], [(v["nll"], (v.get("vs_baseline") or {}).get("kld_mean")) for v in run["variants"]]


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_address[1]}"

with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
    folder = subprocess.run([MXLM, "fetch", REPO, "--quiet"], env=environment(ours, endpoint), check=True, text=True,
                            stdout=subprocess.PIPE).stdout.strip()
    found = json.loads(python(f"""
import json, huggingface_hub as h, transformers, torch
folder = h.snapshot_download("{REPO}", local_files_only=True)
file = h.hf_hub_download("{REPO}", "tokenizer.json", local_files_only=True)
scan = h.scan_cache_dir()
model = transformers.AutoModelForCausalLM.from_pretrained("{REPO}", dtype=torch.float32)
print(json.dumps({{"folder": folder, "file": file, "warnings": [str(w) for w in scan.warnings],
    "repos": [[r.repo_id, r.repo_type, [[v.commit_hash, sorted(v.refs), sorted(f.file_name for f in v.files)]
              for v in r.revisions]] for r in scan.repos],
    "parameters": sum(p.numel() for p in model.parameters()),
    "versions": [h.__version__, transformers.__version__]}}))
""", environment(ours, endpoint, HF_HUB_OFFLINE="1")))
    expected = sorted(n for n in FILES if n.endswith(".json") or is_lfs(n))
    assert found["folder"] == folder, (found["folder"], folder)
    assert pathlib.Path(found["file"]).read_bytes() == FILES["tokenizer.json"]
    assert not found["warnings"], found["warnings"]
    assert found["repos"] == [[REPO, "model", [[COMMIT, ["main"], expected]]]], found["repos"]
    print("huggingface_hub {}, transformers {}".format(*found["versions"]))
    print(f"1. they read ours: {found['folder']}, {found['parameters']} parameters, files {expected}")

    python(f'import huggingface_hub as h; h.snapshot_download("{REPO}")', environment(theirs, endpoint))
    offline = environment(theirs, endpoint, HF_HUB_OFFLINE="1")
    model, from_cache = figures(REPO, offline, theirs)
    _, from_folder = figures(str(MODEL), offline, theirs)
    assert model["name"] == REPO and model["revision"] == COMMIT, model
    assert from_cache == from_folder, (from_cache, from_folder)
    print(f"2. we read theirs: {model['name']} at {model['revision']}, nll {from_cache[0][0]:.6f}, as from the folder")
