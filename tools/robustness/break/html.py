"""Pages of results that strangers wrote: no script, element or request but the page's own."""
import html.parser
import json
import re

from . import _material as material

PAYLOADS = {
    "script": '"><script>alert(1)</script>', "image": "<img src=x onerror=alert(1)>",
    "ends of what it stands in": "</title></style></script></textarea></pre><script>alert(1)</script>",
    "comment": "--><!--<script>alert(1)</script>-->", "svg": "<svg/onload=alert(1)></svg>",
    "attribute in single quotes": "' onmouseover='alert(1)", "attribute in double quotes": '" onfocus="alert(1)" x="',
    "attribute without quotes": "x onclick=alert(1) ", "address": "javascript:alert(1)",
    "character references": "&#60;script&#62;alert(1)&lt;/script&gt;", "base": '<base href="//evil.example/">',
    "foreign object": "</svg><foreignObject><iframe src=//evil.example>", "CDATA": "<![CDATA[<script>alert(1)</script>]]>",
    "meta": '<meta http-equiv="refresh" content="0;url=//evil.example">', "template": "{{7*7}}${7*7}<%=7*7%>",
    "style": "</style><style>@import url(//evil.example)</style>",
}


class Elements(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.bad = [], None

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in ("href", "src", "action") and not (value or "").startswith("#")):
                self.bad = f"<{tag} {name}={value!r}>"

    handle_startendtag = handle_starttag


def elements(page):
    parser = Elements()
    parser.feed(page)
    parser.close()
    return parser


def page_of(ctx, *paths, name="page.html"):
    done = material.run(ctx, "report", *map(str, paths), "-o", str(ctx.tmp / name))
    return (ctx.tmp / name).read_text() if done.returncode == 0 else done.stderr


def same_elements(ctx, page, harmless):
    if isinstance(page, bytes):
        return f"no page: {page[-200:]!r}"
    found, wanted = elements(page), elements(harmless)
    if found.bad:
        return found.bad
    # A long name has places where a line may break.
    if [t for t in found.tags if t != "wbr"] != [t for t in wanted.tags if t != "wbr"]:
        return "other elements than those of a harmless page"
    return None if found.tags.count("script") == 1 else "more than one script"


def trials(ctx):
    harmless = page_of(ctx, material.write_result(ctx, "harmless.json", text="name"), name="harmless.html")
    for name, payload in PAYLOADS.items():
        def payload_in_every_string(payload=payload):
            page = page_of(ctx, material.write_result(ctx, text=payload))
            return same_elements(ctx, page, harmless)
        yield f"every string is: {name}", payload_in_every_string

    def file_name():
        folder = ctx.tmp / "files"
        folder.mkdir(exist_ok=True)
        path = folder / "<img src=x onerror=alert(1)>.json"
        path.write_text(json.dumps(material.result()))
        return same_elements(ctx, page_of(ctx, path), harmless)
    yield "a file's name", file_name

    def three_files():
        paths = [material.write_result(ctx, f"{n}.json", text=p) for n, p in enumerate(list(PAYLOADS.values())[:3])]
        three = [material.write_result(ctx, f"h{n}.json", text="name") for n in range(3)]
        return same_elements(ctx, page_of(ctx, *paths), page_of(ctx, *three, name="three.html"))
    yield "three files on a page", three_files

    def unprintable():
        page = page_of(ctx, material.write_result(ctx, text="a\x1b[31m\u009b\u202eb\x00\u2066"))
        return material.disrupts(page.encode(), b"\n\t") if isinstance(page, str) else f"no page: {page!r}"
    yield "control characters and marks of direction", unprintable

    def policy():
        found = re.search(r'Content-Security-Policy" content="([^"]*)"', harmless)
        return None if found and "default-src 'none'" in found[1] and "unsafe" not in found[1] else "no policy"
    yield "the policy allows the page's own style and script alone", policy

    for value in (1e308, 5e-324, 0.0, None, 1e15, 1e-300):
        def extreme(value=value):
            page = page_of(ctx, material.write_result(ctx, value=value))
            if isinstance(page, bytes):
                return f"no page: {page[-200:]!r}"
            words = re.sub(r"<[^>]*>", " ", page)
            for bad in (r"0{40}", r"\binf\b", r"\bnan\b", r"\d{60}"):
                if re.search(bad, words):
                    return f"the page shows {re.search(bad, words)[0][:40]!r}"
            return None
        yield f"figures are {value}", extreme
