#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ci/peers without torch and without a GPU: cases, figures, and the records of contestants with a made-up clock, read
back by checkmoe. Usage: peers.py REPOSITORY CHECKMOE"""
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest

ROOT, CHECKMOE = sys.argv.pop(1), sys.argv.pop(1)
sys.path.insert(0, os.path.join(ROOT, "ci", "peers"))
sys.dont_write_bytecode = True

import cases
import figures
import measure
import records


class FakeClock:
    """Time passes as functions say: a round trip through a graph costs what its calls cost."""

    def __init__(self):
        self.settled = 0

    def settle(self):
        self.settled += 1

    def record(self, calls):
        for call in calls:
            call()
        total = sum(call.cost if hasattr(call, "cost") else call.__defaults__[1].cost for call in calls)

        def replay():
            pass

        replay.cost = total
        return replay

    def seconds(self, function, times):
        return function.cost * times


def contestant(cost, effect=None):
    def call(n):
        if effect:
            effect(n)

    call.cost = cost
    return call


class Cases(unittest.TestCase):
    def test_sizes_are_those_that_were_asked_for(self):
        found = cases.all_cases()
        self.assertEqual(len(found), len({(c.op, c.model.name, c.product, c.name) for c in found}))
        for op in "sgmv", "moe_forward":
            some = [case for case in found if case.op == op]
            for model in "qwen3-30b-a3b", "deepseek-v2-lite":
                own = [case for case in some if case.model.name == model]
                self.assertEqual({case.r for case in own}, {8, 16, 64})
                self.assertEqual({case.T for case in own}, {1, 16, 128, 1024, 8192})
        self.assertEqual({case.L for case in found if case.op == "sgmv"}, {1, 4, 16, 64})

    def test_least_bytes(self):
        case = cases.Case("sgmv", cases.MODELS[0], 4, 64, 16, 2048, 4096, "q")
        self.assertEqual(case.used, 4)
        self.assertEqual(case.least_bytes, 2 * (4 * 16 * 6144 + 4 * (2048 + 8192)))
        one = cases.Case("moe_forward", cases.MODELS[0], 1, 8, 16)
        self.assertEqual(one.least_bytes, 2 * (8 * 3 * 2048 * 768 + 8 * 3 * 16 * 2816 + 2 * 2048))


class Figures(unittest.TestCase):
    def test_intervals_are_order_statistics(self):
        middle, low, high = figures.median_interval(range(16))
        self.assertEqual((middle, low, high), (7.5, 2, 13))  # 2 * P(at most 2 of 16) = 0.42 %
        self.assertTrue(math.isnan(figures.median_interval([1, 2, 3])[1]))
        self.assertEqual(figures.median_interval([1] * 8)[1:], (1, 1))

    def test_shares(self):
        case = cases.Case("sgmv", cases.MODELS[0], 1024, 16, 16, 2048, 4096, "q")
        limits = {"copy": 4e12, "launch": 2e-6}
        seconds = 2 * case.least_bytes / 4e12
        found = figures.metrics(case, limits, [seconds] * 16, [seconds / 3] * 16)
        self.assertAlmostEqual(found["share_of_copy"], 0.5)
        self.assertAlmostEqual(found["ours_faster"], 3)
        self.assertEqual(figures.regime(case, limits), "memory")
        self.assertIn("50 % of the copy bandwidth", figures.sentence(case, limits, found))
        small = cases.Case("sgmv", cases.MODELS[0], 1, 1, 8, 2048, 4096, "q")
        found = figures.metrics(small, limits, [3e-6] * 16, None)
        self.assertEqual(figures.regime(small, limits), "launch")
        self.assertIn("1.50 times an empty launch", figures.sentence(small, limits, found))
        self.assertNotIn("ours_faster", found)


    def test_rivals(self):
        moe = ("moe_forward/cuda", "moe_forward/cuda-base", "moe_forward/torch-grouped_mm-base")
        self.assertEqual([figures.rival(name, moe) for name in moe], [moe[0], moe[0], moe[1]])
        self.assertEqual(figures.rival("sgmv/triton", ("sgmv/triton", "sgmv/cuda-pair")), "sgmv/cuda-pair")
        self.assertIsNone(figures.rival("sgmv/triton", ("sgmv/triton",)))


class Records(unittest.TestCase):
    def test_contestants_become_records(self):
        case = cases.Case("sgmv", cases.MODELS[0], 16, 4, 16, 2048, 4096, "q")
        state = {"good": False}

        def raises(n):
            raise RuntimeError("not for this shape\nand more")

        rows = [("sgmv/cuda", contestant(2e-6, lambda n: state.update(good=True)), False),
                ("sgmv/torch-grouped_mm", contestant(8e-6, lambda n: state.update(good=True)), False),
                ("sgmv/broken", contestant(1e-9), False),
                ("sgmv/raises", contestant(1e-6, raises), False),
                ("sgmv/triton", "no Triton here")]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "baselines", "gpu.jsonl")
            writer = records.Writer(path, {"version": "0", "gpu": {"name": "made up"}})
            measure.compete(case, rows, 4, lambda by_segment: state["good"], lambda: state.update(good=False), FakeClock(),
                            {"copy": 4e12, "launch": 2e-6}, measure.random.Random(1),
                            lambda name, verdict, reason, metric: writer.record(case.op, name, case.name, verdict,
                                                                                reason, metric))
            self.assertFalse(os.path.exists(path))  # until it is whole
            writer.close()
            self.assertEqual(os.listdir(os.path.dirname(path)), ["gpu.jsonl"])
            with open(path, encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            said = subprocess.run([CHECKMOE, "report", path], capture_output=True, text=True, check=False)
        self.assertEqual([line["schema"] for line in (lines[0], lines[-1])], ["checkmoe.env/1", "checkmoe.end/1"])
        by_name = {line["kernel"]: line for line in lines[1:-1]}
        self.assertEqual({name: line["verdict"] for name, line in by_name.items()},
                         {"sgmv/cuda": "PASS", "sgmv/torch-grouped_mm": "PASS", "sgmv/broken": "FAIL",
                          "sgmv/raises": "SKIP", "sgmv/triton": "SKIP"})
        self.assertEqual(lines[-1]["counts"]["PASS"], 2)
        self.assertAlmostEqual(by_name["sgmv/cuda"]["metric"]["us"], 2)
        self.assertAlmostEqual(by_name["sgmv/torch-grouped_mm"]["metric"]["ours_faster"], 4)
        self.assertEqual(by_name["sgmv/broken"]["metric"], {})
        self.assertEqual(by_name["sgmv/raises"]["reason"], "RuntimeError: not for this shape")
        self.assertIn("sgmv/torch-grouped_mm", said.stdout)
        self.assertIn("2 PASS, 2 SKIP", said.stdout + said.stderr)

    def test_nothing_is_left_of_what_was_broken_off(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "gpu.jsonl")
            writer = records.Writer(path, {})
            writer.record("sgmv", "sgmv/cuda", "t1", "PASS", "", {"us": math.nan, "share": math.inf})
            writer.discard()
            self.assertEqual(os.listdir(folder), [])


class Command(unittest.TestCase):
    def run_command(self, *arguments):
        return subprocess.run([sys.executable, "-B", os.path.join(ROOT, "ci", "peers", "measure.py"), *arguments],
                              capture_output=True, text=True, check=False)

    def test_plan_without_anything(self):
        said = self.run_command("--dry-run")
        self.assertEqual(said.returncode, 0)
        self.assertEqual(len(said.stdout.splitlines()), len(cases.all_cases()) + 1)

    def test_usage(self):
        self.assertEqual(self.run_command().returncode, 2)


unittest.main(verbosity=0)
