"""Markdown tables: a name is text, in one cell, and makes no link and no notice."""
import re

from . import _material as material

# A name, and what must not stand in the output (a regular expression).
NAMES = {
    "pipe": ("a|b", r"(?<!\\)a\|"), "heading": ("\n# x", r"(?m)^# "), "image": ("![x](http://e)", r"(?<!\\)!\["),
    "link": ("[x](//e)", r"(?<!\\)\[x"), "code": ("`x`", r"(?<!\\)`"), "fence": ("\n```\nx", r"(?m)^```"),
    "script": ("<script>x</script>", r"<script"), "image element": ("<img src=x>", r"<img"),
    "reference": ("&lt;b&gt;", r"&(?!amp;|lt;|#8203;)"), "newline": ("a\nb|c|d", r"(?m)^b"),
    "carriage return": ("a\rb", r"\r"), "bold": ("**x**", r"[^\\*]\*\*x"), "underscores": ("__x__", r"(?<!\\)_x"),
    "strike": ("~~x~~", r"(?<!\\)~"), "mathematics": ("$x$", r"(?<!\\)\$"), "quotation": ("\n> x", r"(?m)^> "),
    "list": ("\n* x", r"(?m)^\* x"), "rule": ("\n---\n", r"(?m)^---$"), "comment": ("<!-- x", r"<!--"),
    "https": ("https://evil.example", r"https://"), "http": ("http://evil.example", r"http://"),
    "ftp": ("ftp://evil.example", r"ftp://"), "www": ("www.evil.example", r"www\."), "WWW": ("WWW.e.org", r"WWW\."),
    "user": ("@user", r"@user"), "user in a sentence": ("see @user.", r"@user"), "team": ("@org/team", r"@org"),
    "address": ("a@b.org", r"a@b"), "mailto": ("mailto:a@b.org", r"a@b"), "issue": ("#123", r"(?<!\\)#123"),
    "turned around": ("a\u202eb", "\u202e"), "isolate": ("a\u2066b", "\u2066"), "C1": ("a\u009bb", "\u009b"),
    "escape": ("a\x1b[31m", "\x1b"), "backslash": ("\\|x", r"[^\\]\\\|x"), "line separator": ("a\u2028b", "\u2028"),
}


def trials(ctx):
    for name, (text, forbidden) in NAMES.items():
        def inert(text=text, forbidden=forbidden):
            done = material.report(ctx, material.write_result(ctx, text=text), "--markdown")
            if done.returncode != 0:
                return f"exit code {done.returncode}"
            written = done.stdout.decode()
            found = re.search(forbidden, written)
            if found:
                return f"{found[0]!r} in {written[max(0, found.start() - 20):found.end() + 20]!r}"
            rows = [line for line in written.split("\n") if line.startswith("|")]
            counts = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}
            if len(rows) != 5 or len(counts) != 1:
                return f"{len(rows)} rows with {counts} bars"
            return material.disrupts(written.encode())
        yield f"a name with: {name}", inert
