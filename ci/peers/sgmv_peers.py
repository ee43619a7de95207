# SPDX-License-Identifier: Apache-2.0
"""SGMV on torch's tensors: batches, the checkmoe kernels, and what they are compared with. y += s B A x for tokens
that take L adapters in turn, so that the batch has to be gathered by segments."""
import torch

from entry import Call, Unavailable

SCALINGS = (2.0, 0.5, 1.5)


class Batch:
    """Tensors of one case, made from its seed."""

    def __init__(self, case, seed, device):
        T, L, r, K, N = case.T, case.L, case.r, case.K, case.N
        self.T, self.L, self.r, self.K, self.N = T, L, r, K, N
        make = torch.Generator(device=device).manual_seed(seed)

        def random(*shape, scale=1.0):
            return (torch.randn(*shape, generator=make, device=device) * scale).bfloat16()

        def integers(values):
            return torch.tensor(values, dtype=torch.int32, device=device)

        self.x, self.a, self.b = random(T, K), random(L, r, K, scale=K**-0.5), random(L, N, r, scale=r**-0.5)
        self.y0 = random(T, N)
        self.y = self.y0.clone()
        self.v = torch.empty(T, r, dtype=torch.bfloat16, device=device)
        self.v32 = torch.empty(T, r, device=device)
        self.scaling = torch.tensor([SCALINGS[n % 3] for n in range(L)], device=device)
        tokens = [[t for t in range(T) if t % L == n] for n in range(min(T, L))]
        begins = [sum(len(some) for some in tokens[:n]) for n in range(len(tokens) + 1)]
        tail = L + 1 - len(tokens)  # the plan has L + 1 segments; those behind the last are empty
        self.bounds = list(zip(begins, begins[1:]))
        self.permutation = integers([t for some in tokens for t in some])
        self.offset = integers(begins + [T] * tail)
        self.adapter = integers(list(range(len(tokens))) + [-1] * tail)
        self.rank = integers([r] * L)
        self.slices = integers([0, N])
        self.order = self.permutation.long()
        self.ends = integers((begins[1:] + [T] * L)[:L])  # of all adapters, for grouped products
        self.row_scaling = self.scaling[torch.arange(T, device=device) % L][self.order].unsqueeze(1).bfloat16()
        self.sorted_x, self.sorted_y = self.x[self.order].contiguous(), self.y0[self.order].contiguous()

    def want(self):
        """In double; and the part of it that is the adapters'."""
        delta = torch.zeros(self.T, self.N, dtype=torch.float64, device=self.x.device)
        for n, (begin, end) in enumerate(self.bounds):
            rows = self.order[begin:end]
            delta[rows] = float(self.scaling[n]) * (self.x[rows].double() @ self.a[n].double().T) @ self.b[n].double().T
        return self.y0.double() + delta, delta


def is_right(got, batch):
    """Within what rounding v and y to bf16 explains many times over; a lost adapter is far outside. The checks of
    checkmoe judge closely; this only keeps a measurement from being of something else."""
    want, delta = batch.want()
    limit = 0.03 * delta.square().mean().sqrt() + want.abs() / 64
    return bool(((got.double() - want).abs() <= limit).all())  # NaN is not


def plan_tensors(batch):
    return {"permutation": batch.permutation, "segment_offset": batch.offset, "segment_adapter": batch.adapter,
            "lora_rank": batch.rank}


class Checkmoe:
    """sgmv/cuda, or shrink and expand where there is no fused kernel."""

    def __init__(self, library, batch, fused):
        b = batch
        a4, v3, plan = b.a.view(b.L, 1, b.r, b.K), b.v32.view(b.T, 1, b.r), plan_tensors(b)
        dims = {"T": b.T, "L": b.L, "S": 1, "r": b.r}
        of_expand = {"slice_offset": b.slices, "lora_scaling": b.scaling, "lora_b": b.b, "y": b.y}
        if fused:
            self.calls = [Call(library, "sgmv/cuda", {"x": b.x, "lora_a": a4, **plan, **of_expand},
                               {**dims, "K": b.K, "N": b.N})]
        else:
            self.calls = [Call(library, "sgmv_shrink/cuda", {"x": b.x, "lora_a": a4, "v": v3, **plan},
                               {**dims, "K": b.K}),
                          Call(library, "sgmv_expand/cuda", {"v": v3, **plan, **of_expand}, {**dims, "N": b.N})]

    def run(self, stream):
        for call in self.calls:
            call.run(stream)


def grouped(batch):
    """torch's grouped matmul, gathering and scattering the tokens."""
    v = grouped_mm(batch.x[batch.order], batch.a, batch.ends)
    delta = grouped_mm(v, batch.b, batch.ends) * batch.row_scaling
    batch.y.index_add_(0, batch.order, delta)


def grouped_sorted(batch):
    """The same for tokens that already lie by segments: two products and a sum."""
    v = grouped_mm(batch.sorted_x, batch.a, batch.ends)
    batch.sorted_y += grouped_mm(v, batch.b, batch.ends) * batch.row_scaling


def loop(batch):
    """Two cuBLAS products for each adapter, on tokens that already lie by segments."""
    for n, (begin, end) in enumerate(batch.bounds):
        v = batch.sorted_x[begin:end] @ batch.a[n].T
        batch.sorted_y[begin:end].addmm_(v, batch.b[n].T, alpha=SCALINGS[n % 3])


def grouped_mm(x, w, ends):
    """x [T, K] times w [G, N, K] of each row's group, whose rows end at ends [G]."""
    function = getattr(torch.nn.functional, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
    if not function:
        raise Unavailable(f"torch {torch.__version__} has no grouped matmul")
    return function(x, w.transpose(-2, -1), offs=ends)


def contestants(library, batches, stream):
    """Rows (name, function of a batch's number, whether y lies by segments); of one that is not here (name, reason).
    `stream()` is where to launch."""
    found = []
    for name, fused in (("sgmv/cuda", True), ("sgmv/cuda-pair", False)):
        try:
            calls = [Checkmoe(library, batch, fused) for batch in batches]
            found.append((name, lambda n, calls=calls: calls[n].run(stream()), False))
        except Unavailable as reason:
            found.append((name, str(reason)))
    for name, function, by_segment in (("sgmv/torch-grouped_mm", grouped, False),
                                       ("sgmv/torch-grouped_mm-sorted", grouped_sorted, True),
                                       ("sgmv/cublas-loop-sorted", loop, True)):
        found.append((name, lambda n, function=function: function(batches[n]), by_segment))
    try:
        import triton_sgmv
        found.append(("sgmv/triton", lambda n: triton_sgmv.run(batches[n]), False))
    except ImportError as reason:
        found.append(("sgmv/triton", f"no Triton here: {reason}"))
    return found
