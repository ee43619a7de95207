#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the CUDA kernels of checkmoe beside torch, cuBLAS and Triton in one run, and writes records. What is missing
is a SKIP record with its reason.

Each contestant is captured in a CUDA graph of as many calls as there are copies of the case's tensors, so that what is
read is cold (where `copies` of `least_bytes` fit into a cache, the smallest cases, it is not), and rounds replay the graphs in random order. A figure is the median over rounds; a ratio is by round, with
a 99 % interval by the sign test. Every contestant's result is compared with one in double first: a wrong one gets no
time."""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cases
import figures
import records

COLD = 256 << 20  # bytes of copies, several times the last cache
MOST_COPIES = 128
ROUNDS = 16
SAMPLE = 1e-3  # seconds of a sample, at least


class Clock:
    """A GPU's: graphs of calls, and their time by events."""

    def __init__(self, torch):
        self.torch, self.device = torch, "cuda"

    def stream(self):
        return self.torch.cuda.current_stream().cuda_stream

    def settle(self):
        self.torch.cuda.synchronize()

    def record(self, calls):
        """A function that makes all calls: replays of a graph, captured after a plain run."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for call in calls:
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay

    def seconds(self, function, times):
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(times):
            function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3


def rounds_of(clock, functions, calls, order):
    """Samples (seconds of a call) of each function by round; a function makes `calls` calls."""
    times = []
    for function in functions:
        once = max(clock.seconds(function, 1), 1e-7)
        times.append(max(1, min(1000, int(SAMPLE / once))))
    samples = [[] for _ in functions]
    for _ in range(ROUNDS):
        turn = list(range(len(functions)))
        order.shuffle(turn)
        for n in turn:
            samples[n].append(clock.seconds(functions[n], times[n]) / times[n] / calls)
    return samples


def ceilings(clock, order):
    """Bytes a second of a copy (read and written), and seconds of a launch of next to nothing."""
    torch = clock.torch
    source = torch.empty(1 << 30, dtype=torch.uint8, device=clock.device)
    target, few = torch.empty_like(source), torch.empty(1, device=clock.device)
    copy = clock.record([lambda: target.copy_(source)])
    launch = clock.record([few.zero_] * 200)
    samples = rounds_of(clock, [copy], 1, order)[0], rounds_of(clock, [launch], 200, order)[0]
    return {"copy": 2 * source.numel() / figures.median_interval(samples[0])[0],
            "launch": figures.median_interval(samples[1])[0]}


def lost(error):
    """Whether the device's context is gone: nothing that follows would be measured."""
    return "CUDA error" in str(error) or "illegal" in str(error)


def compete(case, rows, copies, right, reset, clock, limits, order, write):
    """Checks, captures and times the contestants of one case. write(name, verdict, reason, metric)."""
    ready = []
    for name, function, *about in rows:
        if isinstance(function, str):
            write(name, "SKIP", function, {})
            continue
        try:
            reset()
            function(0)
            clock.settle()
            if not right(*about):
                write(name, "FAIL", "its result is not that of the reference in double: it gets no time", {})
                continue
            ready.append((name, clock.record([lambda n=n, f=function: f(n) for n in range(copies)])))
        except Exception as error:  # a peer may not take this case, or can't be captured; a kernel of ours must
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            write(name, "ERROR" if name.split("/")[1].startswith("cuda") else "SKIP", reason, {})
            if lost(error):
                raise
    samples = rounds_of(clock, [function for _, function in ready], copies, order)
    by_name = {name: own for (name, _), own in zip(ready, samples)}
    for name, own in by_name.items():
        ours = by_name.get(figures.rival(name, by_name))
        found = {**figures.metrics(case, limits, own, ours, not name.endswith("-base")), "copies": copies}
        write(name, "PASS", figures.sentence(case, limits, found), found)


class Measurement:
    def __init__(self, clock, library, writer, seconds):
        self.clock, self.library, self.writer = clock, library, writer
        self.deadline, self.order = time.monotonic() + seconds, random.Random(1)
        self.layers, self.limits = {}, None

    def writes(self, case):
        where = f"{case.model.name} {case.product}".strip()

        def write(name, verdict, reason, metric):
            self.writer.record(case.op, name, case.name, verdict, f"{where}: {reason}", metric)

        return write

    def sgmv(self, case):
        import sgmv_peers
        copies = max(2, min(MOST_COPIES, COLD // case.least_bytes))
        batches = [sgmv_peers.Batch(case, seed, self.clock.device) for seed in range(copies)]
        first = batches[0]

        def reset():
            first.y.copy_(first.y0)
            first.sorted_y.copy_(first.y0[first.order])

        def right(by_segment):
            got = first.y.clone()
            if by_segment:
                got[first.order] = first.sorted_y
            return sgmv_peers.is_right(got, first)

        compete(case, sgmv_peers.contestants(self.library, batches, self.clock.stream), copies, right, reset,
                self.clock, self.limits, self.order, self.writes(case))

    def moe_forward(self, case):
        import moe_peers
        if case.model.name not in self.layers:
            self.layers = {case.model.name: moe_peers.Layer(case.model, self.clock.device)}
        torch, layer = self.clock.torch, self.layers[case.model.name]
        batches = [moe_peers.Batch(case, layer, 0, self.clock.device)]
        copies = max(1, min(16, COLD // case.least_bytes))
        while len(batches) < copies and (len(batches) + 1) * batches[0].adapter_bytes() < 16 << 30:
            batches.append(moe_peers.Batch(case, layer, len(batches), self.clock.device))
        m = case.model
        scratch = torch.empty(case.T * m.k * (8 * (m.H + m.I) + 64 * case.r) + (64 << 20), dtype=torch.uint8,
                              device=self.clock.device)

        def reset():
            batches[0].output.fill_(float("nan"))

        def right(with_lora):
            return moe_peers.is_right(batches[0].output, batches[0], with_lora)

        compete(case, moe_peers.contestants(self.library, batches, self.clock.stream, scratch), len(batches), right,
                reset, self.clock, self.limits, self.order, self.writes(case))

    def run(self, selected):
        self.limits = ceilings(self.clock, self.order)
        self.writer.record("copy", "copy/torch", "1-GiB", "PASS",
                           f"{self.limits['copy'] / 1e12:.2f} TB/s read and written; an empty launch takes "
                           f"{self.limits['launch'] * 1e6:.2f} us in a graph",
                           {"copy_bytes_per_second": self.limits["copy"], "launch_us": self.limits["launch"] * 1e6})
        for case in selected:
            if time.monotonic() > self.deadline:
                self.writes(case)(f"{case.op}/cuda", "SKIP", "no time was left", {})
                continue
            try:
                getattr(self, case.op)(case)
            except Exception as error:
                self.writes(case)(f"{case.op}/cuda", "ERROR", f"{type(error).__name__}: {error}", {})
                if lost(error):
                    return


def environment(arguments, torch):
    """That of checkmoe, from the first line of a file of records, with the GPU and the peers."""
    found = {}
    if arguments.environment:
        with open(arguments.environment, encoding="utf-8") as file:
            found = json.loads(file.readline())
    found["argv"] = sys.argv
    found["gpu"] = {"absent": "no torch"}
    if torch and torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit",
                                 "--format=csv,noheader"], capture_output=True, text=True, check=False).stdout
        found["gpu"] = {"name": about.name, "capability": f"{about.major}.{about.minor}",
                        "memory_bytes": about.total_memory, "multiprocessors": about.multi_processor_count,
                        "driver_clocks_power": driver.strip().splitlines()[0] if driver else "unknown",
                        "cuda": torch.version.cuda, "torch": torch.__version__}
        try:
            import triton
            found["gpu"]["triton"] = triton.__version__
        except ImportError:
            found["gpu"]["triton"] = {"absent": "not installed"}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", help="libcheckmoe_entry.so, built with CM_CUDA")
    parser.add_argument("--records", help="file to write")
    parser.add_argument("--environment", help="a file of checkmoe's records: its first line says what ran where")
    parser.add_argument("--seconds", type=float, default=240, help="no case begins later (default 240)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be measured")
    arguments = parser.parse_args()
    selected = cases.all_cases()
    if arguments.dry_run:
        for case in selected:
            print(f"{case.op} {case.model.name} {case.product or '-'} {case.name} {case.least_bytes} bytes at least")
        print(f"{len(selected)} cases")
        return 0
    if not arguments.library or not arguments.records:
        parser.error("--library and --records are needed")
    try:
        import torch
    except ImportError:
        print("SKIP: measurements beside torch, cuBLAS and Triton: this Python has no torch")
        return 77
    if not torch.cuda.is_available():
        print("SKIP: measurements: torch sees no GPU")
        return 77
    from entry import Library
    writer = records.Writer(arguments.records, environment(arguments, torch))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    whole = False
    try:
        Measurement(Clock(torch), Library(arguments.library), writer, arguments.seconds).run(selected)
        whole = True
    finally:  # what was measured is kept, whatever ended it
        writer.close()
        if not whole:
            print(f"{arguments.records}: ended early", file=sys.stderr)
    print(f"{arguments.records}: {writer.counts['PASS']} measured, {writer.counts['SKIP']} skipped, "
          f"{writer.counts['FAIL']} wrong, {writer.counts['ERROR']} failed")
    return 1 if writer.counts["FAIL"] or writer.counts["ERROR"] else 0


if __name__ == "__main__":
    sys.exit(main())
