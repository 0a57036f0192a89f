#!/usr/bin/env python3
"""Checks that mxlm and huggingface_hub read each other's cache, with no network.

A server on the loopback device plays the hub with one repository, tester/booklet-7m, made of models/booklet-7m. Then
1. `mxlm fetch` fills a cache; huggingface_hub finds the model in it (snapshot_download and hf_hub_download with
   local_files_only, scan_cache_dir), and transformers loads its configuration and weights;
2. huggingface_hub's snapshot_download fills another cache; mxlm, offline, evaluates the model from it, with the same
   figures as from the folder;
3. parts of that cache are moved to another place, with links to them: what huggingface_hub finds, mxlm inspects.

Usage: tools/checks/check_hub_cache.py [path of mxlm]     (needs huggingface_hub, transformers, torch; the versions are printed)
"""
import json, os, pathlib, shutil, subprocess, sys, tempfile

from loopback_hub import COMMIT, environment, is_lfs, serve

ROOT = pathlib.Path(__file__).resolve().parents[2]
MXLM = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build/release/mxlm")
MODEL = ROOT / "models/booklet-7m"
REPO = "tester/booklet-7m"
FILES = {p.name: p.read_bytes() for p in sorted(MODEL.iterdir()) if p.is_file()}


def python(code, env):
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, text=True, stdout=subprocess.PIPE).stdout


def figures(model, env, folder):
    out = pathlib.Path(folder) / "out.json"
    subprocess.run([MXLM, "eval", model, "--quiet", "--max-windows", "2", "--json", str(out)], env=env, check=True,
                   stdout=subprocess.DEVNULL)
    run = json.loads(out.read_text())["runs"][0]
    return run["model"], [(v["nll"], (v.get("vs_baseline") or {}).get("kld_mean")) for v in run["variants"]]


endpoint = serve({REPO: FILES})

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

    # Each moves one part (the links in it stay as they are, or become files), or makes what people make of caches.
    home = pathlib.Path(theirs)
    parts = ["hub", "hub/REPO", "hub/REPO/blobs", "hub/REPO/refs", "hub/REPO/refs/main", "hub/REPO/snapshots",
             "hub/REPO/snapshots/COMMIT", "hub/REPO/snapshots/COMMIT/config.json",
             "hub/REPO/snapshots/COMMIT/model.safetensors"]
    layouts = [(part, links, absolute) for part in parts for links in (True, False) for absolute in (True, False)]
    find = "import huggingface_hub as h, os; print(*(isinstance(p, str) and os.path.exists(p) for p in " \
           f"(h.try_to_load_from_cache('{REPO}', n) for n in ('config.json', 'tokenizer.json', 'model.safetensors'))))"
    agreed = 0
    for part, links, absolute in layouts:
        with tempfile.TemporaryDirectory() as place:
            copy = pathlib.Path(place) / "copy"
            shutil.copytree(home, copy, symlinks=True)
            path = copy / part.replace("REPO", "models--" + REPO.replace("/", "--")).replace("COMMIT", COMMIT)
            moved = pathlib.Path(place) / "disk"
            if path.is_dir():
                shutil.copytree(path, moved, symlinks=links)
                shutil.rmtree(path)
            else:
                shutil.copy(path, moved)
                path.unlink()
            path.symlink_to(moved if absolute else os.path.relpath(moved, path.parent.resolve()))
            env = environment(copy, endpoint, HF_HUB_OFFLINE="1")
            theirs_find = python(find, env).split() == ["True"] * 3
            ours = subprocess.run([MXLM, "inspect", REPO], env=env, capture_output=True, text=True)
            assert (ours.returncode == 0) == theirs_find, (part, links, absolute, theirs_find, ours.stderr)
            agreed += 1
    print(f"3. {agreed} layouts with links: found, or not, as huggingface_hub finds them")
