"""From the lines of a run to rows: what was measured, against what, the limit, and the share of the limit."""

import json
from collections import defaultdict

# From the makers' data sheets, dense: TFLOP/s by precision, GB/s. By a part of the name that the driver gives.
DATA_SHEETS = {
    "H100 80GB HBM3": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67, "memory": 3350},
    "H200": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67, "memory": 4800},
    "A100-SXM4-80GB": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5, "memory": 2039},
}
# Images a second, predicted for an H100 by counting bytes and operations: docs/performance.md says how. By what, network and precision.
PREDICTED_FOR_H100 = {
    ("encode", "restok-l-128", "bf16"): "about 470",
    ("encode", "restok-l-128", "tf32"): "about 250",
    ("encode", "restok-l-128", "fp32"): "about 100",
}
COLUMNS = ("what", "measured", "against", "limit", "share")
PROFILE_ROWS_SHOWN = 8


def number(value):
    """Three digits that count."""
    if value is None:
        return "no number"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 1e-2:
        return f"{value:.3g}"
    return f"{value:.1e}"


def row(section, what, measured, against="", limit="", share=None, passed=None, **more):
    return {"section": section, "what": what, "measured": measured, "against": against, "limit": limit, "share": share,
            "passed": passed, **more}


def name_of(line):
    parts = [line["what"], line.get("network"), line.get("precision")]
    if line.get("batch") and line["kind"] != "time":
        parts.append(f"x{line['batch']}")
    if line.get("variant"):
        parts.append(f"({line['variant']})")
    return " ".join(part for part in parts if part)


class Limits:
    """What the device can do, from the peaks of the same run."""

    def __init__(self, lines):
        self.operations, self.memory, self.launches = {}, None, None
        for line in lines:
            if line["kind"] != "peak":
                continue
            if line["unit"] == "TFLOP/s":
                precision = line["precision"]
                # The better of a product and a convolution: more than that nothing can be expected to reach.
                self.operations[precision] = max(self.operations.get(precision, 0), line["value"])
            elif line["what"] == "memory":
                self.memory = line["value"]
            elif line["what"] == "launches":
                self.launches = line["value"]
        # A processor has no TensorFloat-32, and computes in float32.
        self.operations.setdefault("tf32", self.operations.get("fp32"))
        self.calls = {
            (line["what"].replace("profile of ", ""), line["network"], line["precision"]): line["kernel_calls"]
            for line in lines
            if line["kind"] == "profile"
        }

    def arithmetic(self, operations):
        """Least seconds of these operations by precision; none where there are none, or a peak is not known."""
        peaks = {precision: self.operations.get(precision) for precision in operations}
        if not operations or not all(peaks.values()):
            return None
        return sum(count / (1e12 * peaks[precision]) for precision, count in operations.items())

    def of(self, line):
        """Images a second that the device could make of this work, and what holds it there; none where a peak is not known."""
        arithmetic = self.arithmetic(line.get("operations") or {})
        least = {} if arithmetic is None else {"arithmetic": arithmetic}
        if line.get("bytes") and self.memory:
            least["memory"] = line["bytes"] / (1e9 * self.memory)
        # How many kernels a batch takes does not depend on its size.
        calls = self.calls.get((line["what"], line["network"], line["precision"]))
        if calls and self.launches:
            least["launches"] = calls / self.launches
        if "arithmetic" not in least:
            return None
        holds = max(least, key=least.get)
        return line["batch"] / least[holds], holds


def peak_rows(lines, device):
    sheet = next((figures for part, figures in DATA_SHEETS.items() if part in device), {})
    for line in lines:
        key = "memory" if line["what"] == "memory" else line["precision"] if line["unit"] == "TFLOP/s" else None
        limit = sheet.get(key)
        yield row(
            "peaks", f"{line['what']} {line['precision']}".strip(), f"{number(line['value'])} {line['unit']}", line["shape"],
            f"{number(limit)} {line['unit']} (data sheet)" if limit else "", line["value"] / limit if limit else None,
        )


def parity_rows(lines):
    """One row for each network and precision with the figure nearest to its limit, and one for each that did not pass."""
    groups = defaultdict(list)
    for line in lines:
        groups[line["section"], line["what"].split(",")[0], line["precision"]].append(line)
    for (section, network, precision), group in groups.items():
        passed = sum(line["passed"] for line in group)
        within = [line for line in group if line["passed"] and line["relation"] == "at most"]
        worst = max(within, key=lambda line: line["value"] / line["limit"], default=None)
        counted = ", ".join(f"{line['value']} {line['unit']}" for line in group if line["relation"] == "at least")
        what = f"{network}, {precision}" if section == "agreement" else f"{section} of the {network}, {precision}"
        yield row(
            section, what, f"{passed} of {len(group)} within limits",
            counted, f"{worst['what'].split(', ')[-1]}: {number(worst['limit'])}" if worst else "",
            worst["value"] / worst["limit"] if worst else None, passed == len(group),
        )
        for line in group:
            if not line["passed"]:
                measured = line.get("error") or f"{number(line['value'])} {line['unit']}"
                limit = "" if line["limit"] is None else f"{line['relation']} {number(line['limit'])}"
                yield row(section, f"FAILED: {line['what']}, {precision}", measured, "", limit, None, False)


def against(line, lines, published, device):
    """The rate that this one is compared with."""
    if line.get("variant"):
        plain = next((other for other in lines if other["kind"] == "rate" and not other.get("variant") and
                      all(other[key] == line[key] for key in ("what", "network", "precision", "batch"))), None)
        return f"{line['value'] / plain['value']:.2f} of without" if plain else ""
    same = [other for other in published if all(other[key] == line[key] for key in ("what", "network", "precision", "batch"))]
    if same:
        return "; ".join(
            f"published{' compiled' if other['compiled'] else ''} {number(other['value'])} ({line['value'] / other['value']:.2f} times)"
            for other in same
        )
    predicted = PREDICTED_FOR_H100.get((line["what"], line["network"], line["precision"]))
    return f"predicted {predicted}" if predicted and ("H100" in device or "H200" in device) else ""


def fused_row(line):
    """The rate with the fused norms beside that without. It fails nothing: where a kernel cannot run, the plain path does."""
    codes = f"codes {100 * line['equal_share']:.1f} % equal"
    if line["norms"]:
        found = [f"{line['ratio']:.2f} of plain {number(line['plain_value'])}", codes, *line["problems"]]
    else:
        found = [f"not used: {'; '.join(line['problems']) or 'no norm was one of theirs'}"]
    return row(
        line["section"], f"fused norms, {name_of(line)}", f"{number(line['value'])} {line['unit']}", "; ".join(found),
        note=f"median {number(line['fused_median_ms'])} ms, plain {number(line['plain_median_ms'])} ms; {line['norms']:,} norms; {codes}",
    )


def memory_row(line):
    """What a batch took beside what was foretold and what there is. It fails nothing: what is foretold is an estimate."""
    foretold, taken, limit = line["foretold_bytes"], line["peak_allocated_bytes"], line["limit_bytes"]
    against = f"foretold {in_bytes(foretold)}"
    if taken:
        against += f" ({foretold / taken:.2f} of measured)"
    return row(
        line["section"], name_of(line), in_bytes(taken) if taken else "not counted here", against, in_bytes(limit), taken / limit if taken else None,
    )


def in_bytes(count):
    return f"{count / 2**30:.3g} GiB" if count >= 2**27 else f"{count / 2**20:.3g} MiB"


def rate_rows(lines, limits, published, device):
    for line in lines:
        if line["kind"] == "rate":
            limit = limits.of(line)
            seen = line.get("smi")
            memory = line.get("peak_allocated_bytes")
            notes = [f"median {number(line['median_ms'])} ms", f"least {number(line['least_ms'])} ms"]
            if memory:
                notes.append(f"{memory / 2**30:.2f} GiB")
            if seen:
                notes.append(f"busy {seen['busy']:.0f} %, {seen['watts']:.0f} W, {seen['mhz']:.0f} MHz")
            yield row(
                line["section"], name_of(line), f"{number(line['value'])} {line['unit']}", against(line, lines, published, device),
                f"{number(limit[0])} {line['unit']} ({limit[1]})" if limit else "", line["value"] / limit[0] if limit else None,
                note="; ".join(notes),
            )
        elif line["kind"] == "fused":
            yield fused_row(line)
        elif line["kind"] == "memory":
            yield memory_row(line)
        elif line["kind"] == "time":
            yield row(line["section"], f"{line['what']} of {line['batch']:,}", f"{number(line['value'])} {line['unit']}")
        elif line["kind"] == "tokenize":
            encoded = [other["value"] for other in lines if other["kind"] == "rate" and other["what"] == "encode"
                       and other["precision"] == line["precision"] and not other.get("variant")
                       and other["network"] == line["network"]]
            limit = max(encoded, default=None)
            yield row(
                line["section"], name_of(line), f"{number(line['value'])} {line['unit']}", line["against"],
                f"{number(limit)} {line['unit']} (encode)" if limit else "", line["value"] / limit if limit else None,
            )
        elif line["kind"] == "published":
            compiled = " compiled" if line["compiled"] else ""
            yield row(line["section"], f"published{compiled}: {name_of(line)}", f"{number(line['value'])} {line['unit']}",
                      note=f"median {number(line['median_ms'])} ms; first {number(line['first_seconds'])} s")
        elif line["kind"] == "profile":
            cuda = bool(line["kernels"])
            busy = line["busy_ms"] / line["whole_ms"] if line["whole_ms"] else None
            yield row(
                line["section"], name_of(line),
                f"{number(line['busy_ms'])} ms of kernels, {line['kernel_calls']:,} calls" if cuda
                else f"{number(sum(part['ms'] for part in line['operators']))} ms of operators",
                "", f"{number(line['whole_ms'])} ms" if cuda else "", busy,
            )
            for part in (line["kernels"] or line["operators"])[:PROFILE_ROWS_SHOWN]:
                yield row(line["section"], f"  {part['name'][:70]}", f"{number(part['ms'])} ms", f"{part['calls']:,} calls")
        elif line["kind"] == "tests":
            # Of those that compare bytes, a failure is a fact and no fault.
            passed = None if line["repeats"] else line["failed"] == 0
            yield row(line["section"], line["what"], f"{line['passed']} of {line['passed'] + line['failed']} passed",
                      ", ".join(line["names"][:6]), "all" if passed is not None else "", None, passed)


def rows(lines, sections, device):
    """All rows in the order of the sections; of a section that did not end, one that says so."""
    limits = Limits(lines)
    published = [line for line in lines if line["kind"] == "published"]
    by_section = defaultdict(list)
    for found in [
        *parity_rows([line for line in lines if line["kind"] == "parity"]),
        *peak_rows([line for line in lines if line["kind"] == "peak"], device),
        *rate_rows(lines, limits, published, device),
    ]:
        by_section[found["section"]].append(found)
    for section in sections:
        yield from by_section[section["name"]]
        if section["status"] not in ("done", "not asked for"):
            yield row(section["name"], section["name"], section["status"], section["reason"], "", None,
                      None if section["status"] == "skipped" else False)


def table(all_rows):
    cells = [COLUMNS]
    for one in all_rows:
        share = "" if one["share"] is None else f"{100 * one['share']:.1f} %"
        cells.append((one["what"], one["measured"], one["against"], one["limit"], share))
    widths = [min(60, max(len(cell[column]) for cell in cells)) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(cell, widths)).rstrip() for cell in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def text(report):
    head = [
        f"make check-gpu: {report['name']} ({report['device']}), libtorch {report['libtorch']}, restok {report['restok']}, {report['date']}",
        f"{report['command']}",
    ]
    if report["device"] == "cpu":
        head.append("This was a processor: what it says of speed says nothing about a GPU.")
    if report["size"] == "tiny":
        head.append("Tiny sizes: that everything runs, and that parity holds, is what this tells; rates and shares are of toys.")
    verdict = {
        0: "Every check passed, and every section ended.",
        1: "FAILED: figures differ from the published ones.",
        3: "NOT COMPLETE: a section failed, or there was no time for it.",
    }[report["exit_code"]]
    return "\n".join([*head, "", table(report["rows"]), "", f"{verdict} {report['seconds']:.0f} s."]) + "\n"


def write(report, folder):
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    written = text(report)
    (folder / "report.txt").write_text(written)
    return written
