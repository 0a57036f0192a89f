#!/bin/sh
# GitHub's Markdown: a backslash stops a web address from becoming a link, but not an e-mail address.
#
# CommonMark says that an escaped character has no meaning of its own, and `https\://x.org` and `www\.x.org` are
# indeed left alone. `a\@b.org` and `a&#64;b.org` are links all the same: cmark-gfm looks for e-mail addresses after
# escapes and references have become text. A program that writes names of others into a table has to part the sign
# from what follows it (a zero-width space does).
#
# Seen with cmarkgfm 2025.10.22 (GitHub's fork of cmark), Python 3.11:
#   https\://x.org   <p>https://x.org</p>
#   www\.x.org       <p>www.x.org</p>
#   a\@b.org         <p><a href="mailto:a@b.org">a@b.org</a></p>
#   a&#64;b.org      <p><a href="mailto:a@b.org">a@b.org</a></p>
#   a@&#8203;b.org   <p>a@(U+200B)b.org</p>
# Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install cmarkgfm==2025.10.22
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import cmarkgfm

LINKED = {r"https\://x.org": False, r"www\.x.org": False, r"a\@b.org": True, "a&#64;b.org": True,
          "a@&#8203;b.org": False}
same = True
for text, linked in LINKED.items():
    rendered = cmarkgfm.github_flavored_markdown_to_html(text).strip()
    print(f"{text:<16} {rendered}")
    same = same and ("<a " in rendered) == linked
sys.exit(0 if same else 1)
PYTHON
