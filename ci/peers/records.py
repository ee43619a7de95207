# SPDX-License-Identifier: Apache-2.0
"""Writes a file of records as checkmoe does: environment, one line a measurement, counts. Written to a temporary
name and renamed."""
import json
import math
import os
import time

VERDICTS = ("PASS", "FAIL", "SKIP", "ERROR", "CRASH", "TIMEOUT", "VACUOUS")


def plain(value):
    """JSON knows no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    return value


class Writer:
    def __init__(self, path, environment):
        self.path, self.temporary = path, f"{path}.part-{os.getpid()}"
        self.run = f"{int(time.time()):x}-{os.getpid():x}"
        self.counts = dict.fromkeys(VERDICTS, 0)
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self.file = open(self.temporary, "w", encoding="utf-8")
        self.line({**environment, "schema": "checkmoe.env/1", "run": self.run,
                   "start": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})

    def line(self, values):
        self.file.write(json.dumps(values, separators=(",", ":"), allow_nan=False) + "\n")
        self.file.flush()

    def record(self, op, kernel, case, verdict, reason, metric, ms=0.0, compared=0):
        self.counts[verdict] += 1
        self.line({"schema": "checkmoe.record/1", "run": self.run, "suite": "gpu", "check": "perf", "op": op,
                   "kernel": kernel, "target": kernel.split("/")[1].split("-")[0], "mode": "native", "case": case,
                   "seed": "0x1", "verdict": verdict, "ms": ms, "compared": compared,
                   "metric": {name: plain(value) for name, value in metric.items()}, "reason": reason})

    def close(self):
        self.line({"schema": "checkmoe.end/1", "run": self.run, "counts": self.counts})
        self.file.close()
        os.replace(self.temporary, self.path)

    def discard(self):
        self.file.close()
        os.unlink(self.temporary)
