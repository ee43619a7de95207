# SPDX-License-Identifier: Apache-2.0
"""moe_forward on torch's tensors: layers, the checkmoe kernel with and without LoRA, and a composite of torch's
grouped matmuls without LoRA. Tokens take the adapters in turn; routing is random."""
import torch

from entry import Call, Unavailable
from sgmv_peers import SCALINGS, grouped_mm


class Layer:
    """Weights of one model; made once, and shared by its cases."""

    def __init__(self, model, device):
        self.model = model
        make = torch.Generator(device=device).manual_seed(1)

        def random(*shape, scale):
            return (torch.randn(*shape, generator=make, device=device, dtype=torch.bfloat16) * scale)

        m = model
        self.gate, self.up = (random(m.E, m.I, m.H, scale=2 * m.H**-0.5) for _ in range(2))
        self.down = random(m.E, m.H, m.I, scale=m.I**-0.5)


class Batch:
    def __init__(self, case, layer, seed, device):
        m, T, L, r = case.model, case.T, case.L, case.r
        self.case, self.layer, self.T = case, layer, T
        make = torch.Generator(device=device).manual_seed(seed)

        def random(*shape, scale=1.0):
            return (torch.randn(*shape, generator=make, device=device, dtype=torch.bfloat16) * scale)

        self.hidden = random(T, m.H)
        logits = torch.randn(T, m.E, generator=make, device=device)
        weights, ids = torch.softmax(logits, dim=-1).topk(m.k, dim=-1)
        self.ids, self.weights = ids.int().contiguous(), (weights / weights.sum(-1, keepdim=True)).contiguous()
        self.adapter = torch.arange(T, device=device, dtype=torch.int32) % L
        self.output = torch.empty(T, m.H, dtype=torch.bfloat16, device=device)
        self.rank = torch.full((L,), r, dtype=torch.int32, device=device)
        self.scaling = torch.tensor([SCALINGS[n % 3] for n in range(L)], device=device)
        self.lora = {}
        for name, inner, outer in (("gate", m.H, m.I), ("up", m.H, m.I), ("down", m.I, m.H)):
            self.lora[f"lora_a_{name}"] = random(L, m.E, r, inner, scale=inner**-0.5)
            self.lora[f"lora_b_{name}"] = random(L, m.E, outer, r, scale=r**-0.5)

    def adapter_bytes(self):
        return sum(tensor.numel() * tensor.element_size() for tensor in self.lora.values())

    def want(self, rows, with_lora):
        """The first `rows` tokens, in double, slot by slot."""
        layer, m, lora = self.layer, self.case.model, self.lora
        out = torch.zeros(rows, m.H, dtype=torch.float64, device=self.hidden.device)

        def product(name, weight, x, e, a):
            y = weight[e].double() @ x
            if with_lora:
                y += float(self.scaling[a]) * (lora[f"lora_b_{name}"][a, e].double() @
                                               (lora[f"lora_a_{name}"][a, e].double() @ x))
            return y

        for t in range(rows):
            x, a = self.hidden[t].double(), int(self.adapter[t])
            for j in range(m.k):
                e = int(self.ids[t, j])
                gate, up = product("gate", layer.gate, x, e, a), product("up", layer.up, x, e, a)
                h = torch.nn.functional.silu(gate) * up
                out[t] += float(self.weights[t, j]) * product("down", layer.down, h, e, a)
        return out


def is_right(got, batch, with_lora):
    """As in sgmv_peers; of at most 16 tokens, in the order of slots."""
    rows = min(16, batch.T)
    want = batch.want(rows, with_lora)
    limit = 0.05 * want.square().mean().sqrt() + want.abs() / 32
    return bool(((got[:rows].double() - want).abs() <= limit).all())


class Checkmoe:
    def __init__(self, library, batch, with_lora, scratch):
        m, layer, case = batch.case.model, batch.layer, batch.case
        tensors = {"hidden": batch.hidden, "topk_ids": batch.ids, "topk_weights": batch.weights, "w_gate": layer.gate,
                   "w_up": layer.up, "w_down": layer.down, "output": batch.output}
        dims = {"T": case.T, "k": m.k, "E": m.E, "H": m.H, "I": m.I}
        if with_lora:
            tensors |= {"token_adapter": batch.adapter, "lora_rank": batch.rank, "lora_scaling": batch.scaling,
                        **batch.lora}
            dims |= {"L": case.L, "r": case.r}
        self.call = Call(library, "moe_forward/cuda", tensors, dims, scratch=scratch)

    def run(self, stream):
        self.call.run(stream)


def composite(batch):
    """Sort slots by expert, three grouped products, the activation between, and a weighted sum: no LoRA."""
    m, layer = batch.case.model, batch.layer
    ids, order = batch.ids.flatten().sort(stable=True)
    token = order // m.k
    ends = torch.searchsorted(ids, torch.arange(m.E, device=ids.device, dtype=torch.int32), right=True).int()
    x = batch.hidden[token]
    h = torch.nn.functional.silu(grouped_mm(x, layer.gate, ends)) * grouped_mm(x, layer.up, ends)
    y = grouped_mm(h, layer.down, ends) * batch.weights.flatten()[order].unsqueeze(1).bfloat16()
    batch.output.zero_().index_add_(0, token, y)


def contestants(library, batches, stream, scratch):
    """As in sgmv_peers, with whether LoRA is in the result in place of the order."""
    found = []
    for name, with_lora in (("moe_forward/cuda", True), ("moe_forward/cuda-base", False)):
        try:
            calls = [Checkmoe(library, batch, with_lora, scratch) for batch in batches]
            found.append((name, lambda n, calls=calls: calls[n].run(stream()), with_lora))
        except Unavailable as reason:
            found.append((name, str(reason)))
    found.append(("moe_forward/torch-grouped_mm-base", lambda n: composite(batches[n]), False))
    return found
