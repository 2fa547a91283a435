#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""page.py [--luci DIR --ucode PROGRAM] [--picture FILE]: drives LuCI's page "Flow Offload" in a browser without a
screen, with what nft-offload has printed in a guest (selftests/recorded).

LuCI is played by luci.js here, and rpcd's ucode file runs in the browser. With a checkout of LuCI and ucode's
interpreter, both are the real ones.
"""
import argparse
import copy
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
APP = HERE.parent / "luci-app-nft-offload"
RECORDED = HERE.parents[2] / "selftests/recorded"
UCODE = APP / "root/usr/share/rpcd/ucode/nft-offload.uc"
VIEW = APP / "htdocs/luci-static/resources/view/status/nft_offload.js"
HOSTILE = '<img src=x onerror="window.harmed=1">'

STUB = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>LuCI</title><style>
body { font: 13px sans-serif; margin: 1em auto; max-width: 1000px }
table { border-collapse: collapse; width: 100% } td, th { border-top: 1px solid #ccc; padding: .3em; text-align: left }
.cbi-progressbar { background: #eee; position: relative; height: 20px }
.cbi-progressbar > div { background: #90c0e0; height: 100% }
.cbi-progressbar::after { content: attr(title); position: absolute; inset: 0; text-align: center }
</style></head><body><div id="view"></div><script src="/luci.js"></script></body></html>"""

REAL = """<!DOCTYPE html><html lang="en" data-darkmode="false"><head><meta charset="utf-8"><title>OpenWrt - Flow Offload - LuCI</title>
<link rel="stylesheet" href="/luci-static/bootstrap/cascade.css">
<script>window.TR = {}</script><script src="/luci-static/resources/cbi.js"></script></head>
<body class="lang_en"><header><a class="brand" href="/">OpenWrt</a><ul class="nav" id="topmenu" style="display:none"></ul>
<div id="indicators" class="pull-right"></div></header><div id="maincontent" class="container"><div id="tabmenu" style="display:none"></div>
<script src="/luci-static/resources/luci.js"></script><script>
L = new LuCI({ token: "x", media: "/luci-static/bootstrap", resource: "/luci-static/resources", scriptname: "/cgi-bin/luci",
pathinfo: "/admin/status/nft_offload", documentroot: "/www", requestpath: ["admin", "status", "nft_offload"],
dispatchpath: ["admin", "status", "nft_offload"], pollinterval: 5, ubuspath: "/ubus/", sessionid: "x",
nodespec: { readonly: false }, apply_rollback: 90, apply_holdoff: 4, apply_timeout: 5, apply_display: 1.5 });
</script><div id="view"><div class="spinning">Loading view</div><script>
L.require("ui").then(ui => ui.instantiateView("status/nft_offload"));
</script></div></div></body></html>"""


class Router:
    """What nft-offload says, in files that a script of that name prints."""

    def __init__(self, folder):
        self.folder = Path(folder)
        script = self.folder / "nft-offload"
        script.write_text('#!/bin/sh\ncd "${0%/*}"; read -r rc <status; [ "$rc" != 0 ] || cat "./$*" || exit 2; exit "$rc"\n')
        script.chmod(0o755)
        self.reset()

    def reset(self):
        self.metrics = json.loads((RECORDED / "metrics.json").read_text())
        self.reasons = json.loads((RECORDED / "reasons.json").read_text())
        self.flows = [json.loads(line) for line in (RECORDED / "flows.jsonl").read_text().splitlines()]
        self.status = 0
        self.write()

    def write(self):
        (self.folder / "-j metrics").write_text(json.dumps(self.metrics))
        (self.folder / "-j reasons").write_text(json.dumps(self.reasons))
        (self.folder / "flows --jsonl").write_text("".join(json.dumps(flow) + "\n" for flow in self.flows))
        (self.folder / "status").write_text(f"{self.status}\n")

    def popen(self, command):
        env = {"PATH": f"{self.folder}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True)
        return {"text": done.stdout, "status": done.returncode}

    def count(self, group, name, more):
        for counter in self.metrics["counters"]:
            if (counter["group"], counter["name"]) == (group, name):
                counter["count"] += more
                return
        raise KeyError(name)

    def goes_on(self):
        """Some time passes: 900 packets on the fast path, 100 not, and one host is busier than before."""
        self.count("counter", "packets_fast", 900)
        self.count("miss", "no_entry", 60)
        self.count("miss", "mtu", 40)
        self.metrics["flowtables"][0]["packets"] += 900
        self.metrics["flowtables"][0]["bytes"] += 1_250_000
        for flow in self.flows:
            if flow["dnat"]:
                flow["reply"]["bytes"] += 1_250_000
        self.write()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, body, kind="application/json", status=200):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            pass # the page is another one by now

    def do_GET(self):
        path = self.path.split("?")[0]
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png"}
        kind = kinds.get(Path(path).suffix, "text/plain")
        if path == "/":
            return self.answer(REAL if OPTIONS.luci else STUB, "text/html")
        if path == "/luci.js":
            return self.answer((HERE / "luci.js").read_text(), kind)
        if path == "/ucode":
            return self.answer(UCODE.read_text(), kind)
        folders = [APP / "htdocs"]
        if OPTIONS.luci:
            folders += [OPTIONS.luci / "modules/luci-base/htdocs", OPTIONS.luci / "themes/luci-theme-bootstrap/htdocs"]
        for folder in folders:
            file = folder / path.lstrip("/")
            if ".." not in path and file.is_file():
                return self.answer(file.read_bytes(), kind)
        if path.endswith("/menu"):
            return self.answer("{}")
        return self.answer("no such file", "text/plain", 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        if self.path == "/popen":
            return self.answer(json.dumps(ROUTER.popen(body)))
        calls = json.loads(body)
        many = isinstance(calls, list)
        answers = [{"jsonrpc": "2.0", "id": call["id"], "result": self.ubus(call)} for call in (calls if many else [calls])]
        return self.answer(json.dumps(answers if many else answers[0]))

    def ubus(self, call):
        if call["method"] != "call":
            return {}
        _, name, method, _ = call["params"]
        if name != "luci.nft_offload":
            return [0, {"access": True}] if name == "session" else [0, {}]
        return [0, real_ucode(method)]


def real_ucode(method):
    """The answer of a method by the interpreter of ucode."""
    program = f'print(loadfile("{UCODE}")()["luci.nft_offload"].{method}.call({{}}), "\\n");'
    env = {**os.environ, "PATH": f"{ROUTER.folder}:/usr/bin:/bin"}
    done = subprocess.run([OPTIONS.ucode, "-e", program], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ucode: {done.stderr}")
    return json.loads(done.stdout)


class Browser:
    """Chromium, by its own protocol through two pipes."""

    def __init__(self, program, profile):
        to_read, self.to = os.pipe()
        self.back, back_write = os.pipe()
        args = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--remote-debugging-pipe", f"--user-data-dir={profile}", "--hide-scrollbars", "about:blank"]
        # Numbers above those that a shell takes for itself, then those that the browser wants.
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{back_write}', "bash", *args],
                                        pass_fds=(to_read, back_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(back_write)
        self.rest, self.id, self.session, self.errors = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank", width=1100, height=900)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.back, 1 << 20)
            if not more:
                raise SystemExit("the browser has gone")
            self.rest += more
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **params):
        self.id += 1
        request = {"id": self.id, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.to, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("method") == "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.errors.append(message["params"]["entry"]["text"] + " " + message["params"]["entry"].get("url", ""))
            elif message.get("id") == self.id:
                if "error" in message:
                    raise SystemExit(f"{method}: {message['error']['message']}")
                return message["result"]

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise AssertionError(result["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return result["result"].get("value")

    def wait(self, script, seconds=60):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.run(f"!!({script})"):
                return
            time.sleep(0.1)
        raise AssertionError(f"not so after {seconds} s: {script}; {self.errors}; {self.run('document.body.innerText')}")

    def open(self, width=1100):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=URL)
        self.wait("document.querySelector('#nft_offload_reasons .tr:not(.table-titles)')")

    def poll(self, seconds=5):
        """Some time later, and the page has asked again."""
        if OPTIONS.luci:
            self.run("new Promise(done => { const view = document.querySelector('#view'), seen = new MutationObserver(() => "
                     "{ seen.disconnect(); setTimeout(done, 500, 0); }); seen.observe(view, { childList: true, subtree: true }); })")
        else:
            self.run(f"tick({1000 * seconds}); pollNow().then(() => 0)")

    def rows(self, table):
        return self.run(f"Array.from(document.querySelectorAll('#nft_offload_{table} .tr:not(.table-titles)'), row => "
                        "Array.from(row.children, cell => (cell.querySelector('.cbi-progressbar')?.title ?? cell.innerText).replace(/\\u00a0/g, ' ')))")

    def text(self):
        return self.run("document.querySelector('#view').innerText.replace(/\\u00a0/g, ' ')")

    def picture(self, file):
        size = self.run("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        self.call("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        import base64
        Path(file).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.session = None
        try:
            self.call("Browser.close")
        except SystemExit:
            pass
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def same(what, got, want):
    assert got == want, f"{what}: {got!r}, not {want!r}"


def overview(browser):
    return {row[0]: row[1] for row in browser.rows("overview")}


def shows_what_there_is(browser):
    browser.open()
    facts, all_ = overview(browser), ROUTER.metrics
    flows = sum(ft["flows"] for ft in all_["flowtables"])
    same("version", facts["Module"], f"nft_offload {all_['module']['version']}")
    assert f"({flows} of {all_['connections']})" in facts["Connections that are offloaded"], facts
    assert facts["Flows in hardware"].endswith(")") and str(all_["hardware"][0]["flows"]) in facts["Flows in hardware"], facts
    same("flowtable", browser.rows("flowtables")[0][:3], ["inet t f", "offload, counter", str(flows)])
    hosts = {flow["reply" if flow["dnat"] and not flow["snat"] else "original"]["src"] for flow in ROUTER.flows}
    same("hosts", {row[0] for row in browser.rows("hosts")}, hosts)
    known = {f"{r['group']}.{r['name']}": r for r in ROUTER.reasons}
    reasons = browser.rows("reasons")
    assert len(reasons) >= 3
    for row in reasons:
        same("meaning", row[3:], [known[row[0]]["meaning"], known[row[0]]["advice"]])
    assert "skip.helper" in {row[0] for row in reasons}, reasons
    hardware = browser.rows("hardware")[0]
    same("fill", hardware[2], f"{100 * all_['hardware'][0]['rules'] / all_['hardware'][0]['limit']:.1f} % "
         f"({all_['hardware'][0]['rules']} of {all_['hardware'][0]['limit']})")


def follows(browser):
    browser.open()
    ROUTER.goes_on()
    browser.poll()
    facts = overview(browser)
    assert facts["Packets on the fast path, at present"].startswith("90.0 % ("), facts
    same("busiest host", browser.rows("hosts")[0][0], "10.0.1.3")
    same("slow", [row[0] for row in browser.rows("reasons")[:2]], ["miss.no_entry", "miss.mtu"])
    if not OPTIONS.luci: # there the clock is not ours
        same("polled each", browser.run("pollSeconds()"), [5])
        same("rate of the flowtable", browser.rows("flowtables")[0][5], "2.00 Mbit/s")
        same("rate of the host", browser.rows("hosts")[0][1:4], ["2.00 Mbit/s", "0 bit/s", "2.00 Mbit/s"])
        same("rate of a reason", browser.rows("reasons")[0][1], "12 pkt/s")
    # The module has been loaded anew: no rate is below nothing.
    ROUTER.reset()
    browser.poll()
    assert "-" == overview(browser)["Packets on the fast path, at present"], overview(browser)
    assert not re.search(r"-\d", " ".join(row[1] for row in browser.rows("hosts") + browser.rows("reasons"))), browser.text()


def harmless(browser):
    """Names that are HTML are text."""
    ROUTER.metrics["flowtables"][0].update(table=HOSTILE, volatile=f"yes ({HOSTILE})")
    ROUTER.metrics["module"]["version"] = HOSTILE
    ROUTER.metrics["hardware"][0].update(flowtable=HOSTILE, driver_said=HOSTILE, declined={HOSTILE: 1})
    ROUTER.metrics["hardware"][0]["devices"][0].update(engine=HOSTILE, driver=HOSTILE)
    ROUTER.flows[0]["original"]["src"] = HOSTILE
    ROUTER.flows[0]["dnat"] = False
    ROUTER.metrics["counters"].append({"group": "miss", "name": HOSTILE, "count": 10 ** 12})
    ROUTER.reasons.append({"group": "miss", "name": HOSTILE, "meaning": HOSTILE, "advice": HOSTILE})
    ROUTER.write()
    browser.open()
    browser.poll()
    same("elements", browser.run("document.querySelectorAll('#view img, #view script').length"), 0)
    same("scripts that ran", browser.run("window.harmed ?? 0"), 0)
    assert browser.text().count(HOSTILE) >= 10, browser.text()


def says_what_is_wrong(browser):
    browser.open()
    for status, words in ((3, "The module nft_offload is not loaded."), (4, "rpcd may not ask the module."),
                          (6, "nft-offload has failed with status 6.")):
        ROUTER.status = status
        ROUTER.write()
        browser.poll()
        assert words in browser.text(), browser.text()
    (ROUTER.folder / "nft-offload").rename(ROUTER.folder / "away")
    browser.poll()
    (ROUTER.folder / "away").rename(ROUTER.folder / "nft-offload")
    assert "The program nft-offload is not installed." in browser.text(), browser.text()
    ROUTER.reset()
    browser.poll()
    same("messages", browser.run("document.querySelectorAll('.alert-message').length"), 0)
    if not OPTIONS.luci:
        browser.run("window.deaf = true; 0")
        browser.poll()
        assert "rpcd does not answer." in browser.text(), browser.text()


def less_than_all(browser):
    """As an ordinary user, without hardware, without anything."""
    ROUTER.metrics.update(counters=None, hardware=None, connections=None)
    ROUTER.write()
    browser.open()
    assert "The counters are for root of the machine." in browser.text()
    assert "No flowtable has the flag offload." in browser.text()
    browser.poll()
    ROUTER.reset()
    ROUTER.metrics.update(flowtables=[], hardware=[], counters=[])
    ROUTER.flows = []
    ROUTER.write()
    browser.poll()
    for words in ("There is no flowtable.", "There are no flows.", "No packet has taken the slow path."):
        assert words in browser.text(), browser.text()


def a_large_router(browser):
    flow = next(flow for flow in ROUTER.flows if not flow["dnat"])
    ROUTER.flows = []
    for n in range(20100):
        one = copy.deepcopy(flow)
        one["original"]["src"] = f"10.9.{n % 300 // 200}.{n % 200}"
        ROUTER.flows.append(one)
    ROUTER.write()
    browser.open()
    assert "Of the first 20000 flows only." in browser.text(), browser.text()
    same("hosts", len(browser.rows("hosts")), 10)


def files_agree(_):
    """Menu, permissions, methods, translations and dependencies name the same things."""
    def load(name):
        return json.loads((APP / f"root/usr/share/{name}/luci-app-nft-offload.json").read_text())

    view = VIEW.read_text()
    (entry,) = load("luci/menu.d").values()
    assert (APP / f"htdocs/luci-static/resources/view/{entry['action']['path']}.js").is_file()
    ((group, acl),) = load("rpcd/acl.d").items()
    same("permission", entry["depends"]["acl"], [group])
    same("nothing to write", set(acl), {"description", "read"})
    ((name, methods),) = acl["read"]["ubus"].items()
    same("objects", set(re.findall(r"object: '([^']+)'", view)), {name})
    same("methods", set(re.findall(r"method: '([^']+)'", view)), set(methods))
    code = UCODE.read_text()
    same("ucode", set(re.findall(r"^\t(\w+): \{$", code, re.M)), set(methods))
    assert f"return {{ '{name}': methods }};" in code
    # What is run has no part that comes from outside.
    assert set(re.findall(r"ask\('(.*?)'\)", code)) == {"metrics", "reasons"} and not re.search(r"\breq\b", code)
    same("translations", (APP / "po/templates/nft-offload.pot").read_text(), template())


def template():
    """The strings that can be translated, as LuCI's i18n-scan.pl lists them."""
    found = {}
    for file in (VIEW, APP / "root/usr/share/luci/menu.d/luci-app-nft-offload.json"):
        for n, line in enumerate(file.read_text().splitlines(), 1):
            texts = re.findall(r"_\('((?:[^'\\]|\\.)*)'\)", line) if file == VIEW else re.findall(r'"title": "(.*?)"', line)
            for text in texts:
                found.setdefault(text, []).append(f"applications/luci-app-nft-offload/{file.relative_to(APP)}:{n}")
    lines = ['msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8"\n']
    for text in sorted(found):
        places = "".join(f"#: {place}\n" for place in found[text])
        quoted = text.replace("\\'", "'").replace('"', '\\"')
        lines.append(f'{places}msgid "{quoted}"\nmsgstr ""\n')
    return "\n".join(lines)


TESTS = [
    ("menu, permissions, methods and translations agree", files_agree),
    ("what there is is shown", shows_what_there_is),
    ("rates, and the busiest first", follows),
    ("names that are HTML are text", harmless),
    ("what is wrong is said, and taken back", says_what_is_wrong),
    ("without counters, hardware, flowtables", less_than_all),
    ("more flows than are looked at", a_large_router),
]


def main():
    failed = 0
    profile = tempfile.TemporaryDirectory()
    browser = Browser(OPTIONS.browser, profile.name)
    if not OPTIONS.luci:
        browser.call("Page.addScriptToEvaluateOnNewDocument",
                     source="{ let clock = 1e12; Date.now = () => clock; window.tick = ms => clock += ms; }")
    try:
        for name, test in TESTS:
            ROUTER.reset()
            browser.errors.clear()
            try:
                test(browser)
                same("errors in the browser", browser.errors, [])
                print(f"ok {name}", flush=True)
            except (AssertionError, KeyError) as e:
                print(f"not ok {name}\n# {e!r}", flush=True)
                failed += 1
        if OPTIONS.picture:
            ROUTER.reset()
            browser.open(1140)
            for _ in range(2):
                ROUTER.goes_on()
                browser.poll()
            browser.picture(OPTIONS.picture)
    finally:
        browser.close()
        try:
            profile.cleanup()
        except OSError:
            pass # a helper of the browser may still write
    print(f"{len(TESTS) - failed} passed, {failed} failed, 0 skipped")
    return failed != 0


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--browser", default="chromium-headless-shell")
parser.add_argument("--luci", type=Path)
parser.add_argument("--ucode")
parser.add_argument("--picture")
parser.add_argument("--template", action="store_true", help="write po/templates")
OPTIONS = parser.parse_args()
if OPTIONS.template:
    (APP / "po/templates/nft-offload.pot").write_text(template())
    sys.exit()
FOLDER = tempfile.TemporaryDirectory()
ROUTER = Router(FOLDER.name)
SERVER = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
URL = f"http://127.0.0.1:{SERVER.server_port}/"
threading.Thread(target=SERVER.serve_forever, daemon=True).start()
sys.exit(main())
