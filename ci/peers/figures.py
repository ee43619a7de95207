# SPDX-License-Identifier: Apache-2.0
"""From samples to figures, and from figures to a sentence. Nothing here needs torch."""
import math
import statistics

LEVEL = 0.99


def median_interval(values):
    """(median, low, high): order statistics that hold the median with 99 % by the sign test; low and high are NaN
    where there are too few values."""
    values, n = sorted(values), len(values)
    outside, k = 0.0, 0  # k values are left out at each end
    while k < n // 2:
        outside += 2 * math.comb(n, k) / 2**n
        if outside > 1 - LEVEL:
            break
        k += 1
    if k == 0:
        return (statistics.median(values) if values else math.nan), math.nan, math.nan
    return statistics.median(values), values[k - 1], values[n - k]


def ratios(samples, baseline):
    """Time of `baseline` over that of each, by round: above 1 the baseline is slower."""
    return [b / s for b, s in zip(baseline, samples)]


def rival(name, names):
    """The checkmoe kernel that a contestant is compared with: of layers without LoRA the one without it."""
    op, target = name.split("/")
    base = f"{op}/cuda-base"
    if target.endswith("-base") and name != base and base in names:
        return base
    return next((own for own in (f"{op}/cuda", f"{op}/cuda-pair") if own in names), None)


def metrics(case, ceilings, samples, ours, adapted=True):
    """Figures of one contestant's samples (seconds of a call). `ours`: those of the checkmoe kernel, or None;
    `adapted`: it reads the adapters."""
    least = case.least_bytes if adapted else case.base_bytes
    seconds, low, high = median_interval(samples)
    found = {"us": seconds * 1e6, "us_low": low * 1e6, "us_high": high * 1e6, "rounds": len(samples),
             "least_bytes": least}
    if ceilings:
        found["share_of_copy"] = least / seconds / ceilings["copy"]
        found["times_empty_launch"] = seconds / ceilings["launch"]
    if ours is not None and ours is not samples:
        found["ours_faster"], found["ours_faster_low"], found["ours_faster_high"] = median_interval(
            [theirs / own for theirs, own in zip(samples, ours)])
    return found


DENSE = 200  # operations a byte from which arithmetic is the bound on a GPU with tensor cores, in round numbers


def regime(case, ceilings):
    """What bounds the least work: "launch", "memory" or "arithmetic"."""
    if case.operations > DENSE * case.least_bytes:
        return "arithmetic"
    return "launch" if case.least_bytes / ceilings["copy"] < ceilings["launch"] else "memory"


def sentence(case, ceilings, found):
    words = f"{found['us']:.2f} us"
    if ceilings:
        if regime(case, ceilings) == "memory":
            words += f", {100 * found['share_of_copy']:.0f} % of the copy bandwidth"
        elif regime(case, ceilings) == "launch":
            words += f", {found['times_empty_launch']:.2f} times an empty launch"
    if "ours_faster" in found:
        words += f"; {found['ours_faster']:.2f} times the time of the checkmoe kernel"
    return words
