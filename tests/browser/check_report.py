#!/usr/bin/env python3
"""Opens reports in headless Chromium and tries what a reader would: sorting, filtering and links by
mouse and keyboard, a phone, dark mode, paper, and a page whose script does not run.

Usage: check_report.py FLOWBENCH [FOLDER for screenshots and the printed page]
"""

import csv
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import browser

RUN = "20261124T031500Z-made"
HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"

# WCAG contrast of every text against the nearest background behind it; pictures are left out.
CONTRAST = """(() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0.99) return color;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('svg, script')) continue;
    const style = getComputedStyle(element);
    const a = light(parse(style.color)), b = light(behind(element));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) bad.push([contrast.toFixed(2), element.outerHTML.slice(0, 80)]);
  }
  return bad.slice(0, 5);
})()"""


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def make_run(folder, machine, factor):
    """A run with gaps, a failure and hostile texts, as rows alone."""
    columns = ["schema", "run", "suite", "case_id", "mechanism", "variant", "device",
               "device_name", "isa", "threads", "dtype", "layout", "causal", "pass", "batch",
               "heads", "seq_len", "kv_len", "head_dim", "value_dim", "params", "seed", "status",
               "reason", "time_median_s", "time_ci_low_s", "time_ci_high_s", "samples",
               "processes", "floor_s", "floor_ratio", "mem_workspace_bytes", "mem_saved_bytes",
               "err_rel", "err_budget"]
    os.makedirs(folder)
    mechanisms = [("flow", "fused", 4e-7, 1), ("softmax", "tiled", 8e-10, 2),
                  ("linear", "fused", 2.4e-7, 1), (HOSTILE[:60], "x", 9e-7, 1)]
    with open(f"{folder}/results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for causal in ("false", "true"):
            for number, (mechanism, variant, unit, power) in enumerate(mechanisms):
                for step in range(7):
                    size = 256 << step
                    time = factor * unit * size**power
                    row = {"schema": 1, "run": RUN, "suite": "made", "mechanism": mechanism,
                           "case_id": f"{causal}{number}{step}".encode().hex()[:16].ljust(16, "0"),
                           "variant": variant, "device": "cpu", "device_name": machine,
                           "isa": "avx2", "threads": 2, "dtype": "f32", "layout": "BHND",
                           "causal": causal, "pass": "forward", "batch": 1, "heads": 8,
                           "seq_len": size, "kv_len": size, "head_dim": 64, "value_dim": 64,
                           "params": "{}", "seed": 1}
                    if mechanism == "softmax" and step == 6:
                        row |= {"status": "oom", "reason": "needs 68 GiB, the limit is 12 GiB"}
                    elif number == 3 and step == 2:
                        row |= {"status": "wrong", "reason": HOSTILE}
                    else:
                        row |= {"status": "ok", "time_median_s": time, "time_ci_low_s": time * .99,
                                "time_ci_high_s": time * 1.01, "samples": 12, "processes": 1,
                                "floor_s": time / (1.3 + step / 10),
                                "floor_ratio": 1.3 + step / 10, "mem_workspace_bytes": 1024 * size,
                                "mem_saved_bytes": 0, "err_rel": 3e-7, "err_budget": 1e-5}
                    writer.writerow(row)
    return 56


def shown_rows(page, table="cases"):
    return page.evaluate(f"""Array.from(document.querySelectorAll('#{table} tbody tr'))
        .filter((row) => getComputedStyle(row).display !== 'none')
        .map((row) => Array.from(row.cells, (cell) => cell.textContent))""")


def head_of(page, key, table="cases"):
    return page.evaluate(f"""Array.from(document.querySelectorAll('#{table} thead th'))
        .findIndex((head) => head.dataset.key === '{key}')""")


def seconds(text):
    number, unit = re.fullmatch(r"([\d.]+) (ns|µs|ms|s)", text).groups()
    return float(number) * {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}[unit]


def check_order(page, key, descending):
    column = head_of(page, key)
    texts = [row[column] for row in shown_rows(page)]
    filled = [text for text in texts if text]
    check(texts[: len(filled)] == filled, f"{key}: rows without a value are not last")
    values = [seconds(text) for text in filled]
    check(values == sorted(values, reverse=descending), f"{key} is not sorted")
    check(len(values) > 10, f"{key}: only {len(values)} values")


def check_desktop(page, url, rows):
    page.open(url)
    check(len(shown_rows(page)) == rows, f"{len(shown_rows(page))} of {rows} rows")
    check("hacked" not in page.evaluate("document.title"), "a text of the run became markup")
    check(page.evaluate("document.querySelectorAll('#cases img, main script').length") == 0,
          "a text of the run became an element")
    button = "document.querySelector('#cases th[data-key=time] button')"
    page.evaluate(f"{button}.click()")
    check_order(page, "time", False)
    page.evaluate(f"{button}.click()")
    check_order(page, "time", True)
    check(page.evaluate(f"{button}.parentElement.getAttribute('aria-sort')") == "descending",
          "aria-sort does not tell the order")
    check(page.evaluate("location.hash") == "#cases?sort=time&order=descending",
          "the order has no address")
    return page.evaluate("location.href")


def check_keyboard(page, url):
    page.open(url)
    page.press("Tab", 9)
    check(page.evaluate("document.activeElement.className") == "skip", "no skip link comes first")
    page.press("Enter", 13, "\r")
    check(page.evaluate("document.activeElement.id") == "main", "the skip link does not skip")
    page.evaluate("document.querySelector('#cases th[data-key=floor] button').focus()")
    page.press("Enter", 13, "\r")
    check(page.evaluate("document.querySelector('#cases th[data-key=floor]').ariaSort")
          == "ascending", "Enter on a heading does not sort")
    page.press("Tab", 9)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    check(outline not in ("none", ""), "the focus cannot be seen")


def check_links(page, url, rows):
    page.open(url + "#cases?sort=time&order=descending&mechanism=flow%2Ffused&n=1K")
    check_rows = shown_rows(page)
    check([row[0] for row in check_rows] == ["flow/fused"] * 2, f"filtered to {check_rows}")
    check(page.evaluate("document.querySelector('#cases-find').closest('.controls')"
                        ".querySelector('output').textContent") == f"2 of {rows} rows",
          "the count is not told")
    page.open(url + "#cases?find=68%20gib")
    check(len(shown_rows(page)) == 2, "the search field does not search")
    page.evaluate("document.querySelector('#cases-find').closest('.controls')"
                  ".querySelector('button').click()")
    check(len(shown_rows(page)) == rows, "'show all' does not")
    for nonsense in ("#cases?sort=nothing&order=up", "#cases?mechanism=none", "#%", "#x?y=z"):
        page.open(url + nonsense)
        check(len(shown_rows(page)) == rows, f"{nonsense} hides rows")


def check_narrow(page, url, width):
    page.open(url, width, 740, mobile=True)
    check(page.evaluate("document.documentElement.scrollWidth") <= width,
          f"at {width} px the page scrolls sideways")
    wide = page.evaluate("""Array.from(document.querySelectorAll('main *')).filter((element) =>
        element.getBoundingClientRect().right > innerWidth + 1 &&
        !element.closest('.box, .picture, pre')).map((element) => element.outerHTML.slice(0, 90))""")
    check(not wide, f"at {width} px these stick out: {wide[:3]}")


def check_paper(page, url, rows, folder):
    page.open(url + "#cases?mechanism=flow%2Ffused")
    pdf = page.print_pdf(folder / "printed.pdf")
    check(pdf.startswith(b"%PDF") and len(pdf) > 20000, "nothing is printed")
    page.call("Emulation.setEmulatedMedia", media="print")
    check(len(shown_rows(page)) == rows, "paper does not have all rows")
    check(page.evaluate("""Array.from(document.querySelectorAll('button, .controls, nav, .skip'))
        .every((element) => element.closest('th') || element.getClientRects().length === 0)"""),
          "paper has controls")


def check_without_script(page, url, rows):
    page.open(url, script=False)
    html = page.call("DOM.getOuterHTML",
                     nodeId=page.call("DOM.getDocument")["root"]["nodeId"])["outerHTML"]
    check(html.count("./bench repro ") >= rows, "without script rows are missing")
    check("<button" not in html.split("<script>")[0], "without script there are dead buttons")


def check_all(page, folder, flowbench):
    rows = make_run(folder / "one", "Made Processor", 1.0)
    make_run(folder / "two", "Another Processor", 0.5)
    for name, runs in (("one", ["one"]), ("both", ["one", "two"])):
        subprocess.run([flowbench, "report", *[folder / run for run in runs], "-o",
                        folder / f"{name}.html"], check=True, stdout=subprocess.DEVNULL)
    url = (folder / "one.html").as_uri()
    linked = check_desktop(page, url, rows)
    page.open(linked)
    check_order(page, "time", True)
    check_keyboard(page, url)
    check_links(page, url, rows)
    for name, count in (("one", rows), ("both", 2 * rows)):
        address = (folder / f"{name}.html").as_uri()
        check_narrow(page, address, 360)
        page.screenshot(folder / f"{name}-phone.png")
        for dark in (False, True):
            page.open(address, dark=dark)
            check(len(shown_rows(page)) == count, f"{name}: rows are missing")
            check(page.evaluate("document.documentElement.scrollWidth") <= 1280,
                  f"{name}: the page scrolls sideways")
            poor = page.evaluate(CONTRAST)
            check(not poor, f"{name}, {'dark' if dark else 'light'}: poor contrast: {poor}")
            page.screenshot(folder / f"{name}-{'dark' if dark else 'light'}.png")
    check_paper(page, url, rows, folder)
    check_without_script(page, url, rows)
    foreign = [request for request in page.requests
               if not request.startswith(("file://", "about:", "data:"))]
    check(not foreign, f"the page asks for {foreign}")
    check(not page.complaints, f"the browser complains: {page.complaints[:3]}")


def main():
    program = browser.find()
    if program is None:
        print("skipped: no Chromium here (Debian: apt install chromium)")
        return 77
    flowbench = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="flowbench-page-") as temporary:
        folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        page = browser.Browser(program, timeout_s=240)
        try:
            check_all(page, folder, flowbench)
        finally:
            page.close()
    print("reports in Chromium: fine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
