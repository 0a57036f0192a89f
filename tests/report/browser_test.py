#!/usr/bin/env python3
"""Opens report pages in headless Chromium, as a reader would, and fails on whatever a reader would stumble over.

usage: tests/report/browser_test.py PAGE.html... [--screenshots FOLDER]

Each page is loaded at 390 and 1280 pixels width, light and dark, and as on paper. A check fails when the page logs to
the console, throws, breaks its Content-Security-Policy, asks for anything but itself, runs what a name holds, is wider
than the window, has text on a plot that overlaps other text or is cut off, sets text too small or with too little
contrast, or when a table does not sort by mouse and keyboard. Needs Python 3 and Chromium (CHROMIUM names another
program), speaks the DevTools protocol over a pipe, and nothing else.
"""

import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile

TIMEOUT_S = 120  # of one answer: machines of continuous integration are slow

# What the page is asked. `problems` is a list of sentences.
LAYOUT = r"""
(() => {
  const problems = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.body.querySelectorAll("*")].filter((e) =>
      !e.parentElement.closest(".scroll") && e.getBoundingClientRect().right > root.clientWidth + 1);
    problems.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}: ` +
      wide.slice(0, 3).map((e) => `<${e.tagName} class="${e.className}">`).join(" "));
  }
  for (const svg of document.querySelectorAll("main svg")) {
    if (!svg.checkVisibility()) continue;
    const frame = svg.getBoundingClientRect();
    if (!svg.matches("[aria-hidden]") && !svg.querySelector("title")?.textContent) problems.push("a plot has no title");
    const texts = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
    texts.forEach(([text, box], i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        problems.push(`the text "${text}" is cut off in "${svg.querySelector("title").textContent}"`);
      }
      for (const [other, there] of texts.slice(i + 1)) {
        // Boxes of lines are taller than their letters.
        const slack = 0.25 * box.height;
        if (box.left + 1 < there.right && there.left + 1 < box.right &&
            box.top + slack < there.bottom - slack && there.top + slack < box.bottom - slack) {
          problems.push(`"${text}" lies on "${other}" in "${svg.querySelector("title").textContent}"`);
        }
      }
      if (box.height < 9) problems.push(`the text "${text}" is ${box.height.toFixed(1)} pixels high`);
    });
  }
  // Contrast by WCAG 2 of what has text of its own, against the page.
  const channel = (x) => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const luminance = (rgb) => { const [r, g, b] = rgb.map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const rgb = (text) => text.match(/[\d.]+/g).slice(0, 3).map(Number);
  const page = luminance(rgb(getComputedStyle(document.body).backgroundColor));
  const seen = new Set();
  for (const e of document.querySelectorAll("main *")) {
    if (e.matches("title, desc") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e);
    const color = e.closest("svg") ? style.fill : style.color;
    if (seen.has(color) || !color.startsWith("rgb")) continue;
    seen.add(color);
    const ink = luminance(rgb(color));
    const ratio = (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
    if (ratio < 4.5) problems.push(`text in ${color} has a contrast of ${ratio.toFixed(2)}`);
  }
  if (!document.querySelector("h1")) problems.push("there is no heading");
  if (window.hit || document.querySelector("main script, main img, main iframe")) problems.push("a name became markup");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) problems.push("an id is there twice");
  return { problems, dark: page < 0.2, width: innerWidth, text: document.body.innerText.length };
})()
"""

SORTING = r"""
(() => {
  const problems = [];
  let sorted = 0;
  for (const table of document.querySelectorAll("table.sortable")) {
    const rows = [...table.tBodies[0].rows];
    for (const head of table.tHead.rows[0].cells) {
      const button = head.querySelector("button");
      if (!button) { problems.push("a head has no button"); continue; }
      const column = Number(head.dataset.c);
      const values = () => [...table.tBodies[0].rows].map((r) => r.cells[column]?.dataset.s ?? r.cells[column]?.dataset.v)
        .filter((v) => v !== undefined).map(Number);
      button.click();
      if (head.getAttribute("aria-sort") !== "ascending") problems.push("no aria-sort");
      const up = values();
      if (up.some((v, i) => i > 0 && v < up[i - 1])) problems.push(`not ascending: ${head.textContent}`);
      button.click();
      const down = values();
      if (down.some((v, i) => i > 0 && v > down[i - 1])) problems.push(`not descending: ${head.textContent}`);
      button.click();
      if ([...table.tBodies[0].rows].some((r, i) => r !== rows[i])) problems.push("the page's order is not restored");
      ++sorted;
    }
  }
  return { problems, sorted };
})()
"""


class Browser:
    """Chromium behind a pipe. Messages are JSON, each ended by a zero byte."""

    def __init__(self, program, profile):
        command_read, self._out = os.pipe()
        self._in, answer_write = os.pipe()
        # Chromium reads descriptor 3 and writes 4; these copies are out of the way of both.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (command_read, answer_write)]
        flags = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        if os.getuid() == 0:
            flags.append("--no-sandbox")  # Chromium refuses to run as root with it
        script = f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(["bash", "-c", script, "bash", program, *flags, "about:blank"], pass_fds=theirs,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in (command_read, answer_write, *theirs):
            os.close(fd)
        self._buffer = b""
        self._number = 0
        self.events = []

    def _message(self):
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], TIMEOUT_S)[0]:
                raise RuntimeError(f"Chromium has been silent for {TIMEOUT_S} s")
            more = os.read(self._in, 1 << 20)
            if not more:
                raise RuntimeError("Chromium ended")
            self._buffer += more
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **params):
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        if session:
            request["sessionId"] = session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data):]
        while True:
            message = self._message()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def wait_for(self, method):
        while not any(e.get("method") == method for e in self.events):
            self.events.append(self._message())

    def close(self):
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError):
            self._process.kill()
        self._process.wait()


def complaints(events, url):
    """What the page said or asked for that it should not have."""
    out = []
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled":
            out.append("console: " + " ".join(str(a.get("value")) for a in params["args"]))
        elif method == "Runtime.exceptionThrown":
            out.append("exception: " + json.dumps(params["exceptionDetails"])[:300])
        elif method == "Log.entryAdded":
            out.append(f"log: {params['entry']['text']}")
        elif method == "Page.javascriptDialogOpening":
            out.append("a dialog opened")
        elif method == "Network.requestWillBeSent" and params["request"]["url"].split("#")[0] != url:
            out.append(f"asked for {params['request']['url'][:200]}")
    return out


def check_page(browser, session, page, width, scheme, folder):
    """Problems of one page in one window."""
    media = [{"name": "prefers-color-scheme", "value": scheme if scheme != "print" else "light"}]
    browser.call("Emulation.setEmulatedMedia", session, media="print" if scheme == "print" else "", features=media)
    browser.call("Emulation.setDeviceMetricsOverride", session, width=width, height=900,
                 deviceScaleFactor=2 if width < 600 else 1, mobile=width < 600)
    browser.events.clear()
    url = page.resolve().as_uri()
    browser.call("Page.navigate", session, url=url)
    browser.wait_for("Page.loadEventFired")

    def ask(script):
        answer = browser.call("Runtime.evaluate", session, expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            return {"problems": [f"the check itself failed: {answer['exceptionDetails']}"]}
        return answer["result"].get("value")

    answer = ask(LAYOUT)
    problems = answer["problems"]
    if answer.get("text", 0) < 200:
        problems.append("there is hardly any text")
    if answer.get("dark") != (scheme == "dark"):
        problems.append("the colours are not those of the scheme")
    if answer.get("width") != width:
        problems.append(f"the window is {answer.get('width')} wide")
    if folder:
        metrics = browser.call("Page.getLayoutMetrics", session)["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": min(metrics["height"], 6000), "scale": 1}
        shot = browser.call("Page.captureScreenshot", session, captureBeyondViewport=True, clip=clip)
        (folder / f"{page.stem}-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
    sorting = ask(SORTING)
    problems += sorting["problems"]
    if sorting.get("sorted", 0) == 0 and b"<tbody>" in page.read_bytes():
        problems.append("no table can be sorted")
    # By keyboard: to the first button, which Enter presses.
    first = "[...document.querySelectorAll('th button')].find((b) => b.checkVisibility())"
    ask(f"{first}?.focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", session, type=kind, key="Enter", code="Enter", text="\r",
                     windowsVirtualKeyCode=13)
    if not ask(f"!{first} || !!document.querySelector('th[aria-sort=ascending]')"):
        problems.append("Enter does not sort")
    # Unfolded, as the page does it for paper, nothing may be wider than the window either.
    if scheme == "print":
        ask("dispatchEvent(new Event('beforeprint'))")
    else:
        ask("for (const part of document.querySelectorAll('details')) part.open = true")
    problems += ["unfolded: " + p for p in ask(LAYOUT)["problems"] if p not in problems]
    return problems + complaints(browser.events, url)


def main():
    arguments = sys.argv[1:]
    folder = None
    if "--screenshots" in arguments:
        at = arguments.index("--screenshots")
        folder = pathlib.Path(arguments[at + 1])
        folder.mkdir(parents=True, exist_ok=True)
        del arguments[at:at + 2]
    pages = [pathlib.Path(a) for a in arguments]
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not pages or not program:
        sys.exit(__doc__ if not pages else "Chromium is missing; install the package chromium, or name it in CHROMIUM.")
    failed = 0
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(program, profile)
        try:
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                browser.call(f"{domain}.enable", session)
            for page in pages:
                for width, scheme in ((390, "light"), (390, "dark"), (1280, "light"), (1280, "dark"), (720, "print")):
                    problems = check_page(browser, session, page, width, scheme, folder)
                    failed += bool(problems)
                    print(f"{'FAILED' if problems else 'ok'}: {page.name}, {width} pixels, {scheme}")
                    for problem in problems[:12]:
                        print(f"  {problem}")
        finally:
            browser.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
