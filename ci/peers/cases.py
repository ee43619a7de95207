# SPDX-License-Identifier: Apache-2.0
"""What is measured on a GPU: sizes of two models, ranks, adapters and tokens. Nothing here needs torch."""
import dataclasses

RANKS = (8, 16, 64)
ADAPTERS = (1, 4, 16, 64)
TOKENS = (1, 16, 128, 1024, 8192)


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    H: int
    I: int
    E: int
    k: int
    products: tuple  # (name, K, N) of dense products that have adapters


MODELS = (
    Model("qwen3-30b-a3b", 2048, 768, 128, 8, (("q", 2048, 4096), ("o", 4096, 2048))),
    Model("deepseek-v2-lite", 2048, 1408, 64, 6, (("q", 2048, 3072), ("dense_down", 10944, 2048))),
)


def experts_of(model, tokens):
    """Mean number of experts that so many tokens reach."""
    return model.E * (1 - (1 - model.k / model.E) ** tokens)


@dataclasses.dataclass(frozen=True)
class Case:
    op: str  # sgmv or moe_forward
    model: Model
    T: int
    L: int
    r: int
    K: int = 0  # of sgmv
    N: int = 0
    product: str = ""

    @property
    def name(self):
        """In the grammar of case names: dimensions, then dtype."""
        if self.op == "sgmv":
            return f"t{self.T}-r{self.r}x{self.L}-K{self.K}-n{self.N}-bf16"
        m = self.model
        return f"t{self.T}-k{m.k}-e{m.E}-h{m.H}-i{m.I}-r{self.r}x{self.L}-bf16"

    @property
    def used(self):
        """Adapters that the batch uses: tokens take them in turn."""
        return min(self.T, self.L)

    @property
    def least_bytes(self):
        """Each addressed element of bf16 moved once; y is read and written. Of a layer the mean over routings in which
        each token draws its experts evenly."""
        if self.op == "sgmv":
            return 2 * (self.used * self.r * (self.K + self.N) + self.T * (self.K + 2 * self.N))
        m = self.model
        return self.base_bytes + round(2 * self.pairs * 3 * self.r * (m.H + m.I))

    @property
    def base_bytes(self):
        """The same of a layer without its adapters."""
        m = self.model
        return round(2 * (experts_of(m, self.T) * 3 * m.H * m.I + 2 * self.T * m.H))

    @property
    def pairs(self):
        """Experts with an adapter that some token takes there: tokens take adapters in turn."""
        share, more = divmod(self.T, self.used)
        return more * experts_of(self.model, share + 1) + (self.used - more) * experts_of(self.model, share)

    @property
    def operations(self):
        """Additions and multiplications."""
        if self.op == "sgmv":
            return 2 * self.T * self.r * (self.K + self.N)
        m = self.model
        return 2 * self.T * m.k * 3 * (m.H * m.I + self.r * (m.H + m.I))


def sgmv_cases():
    for model in MODELS:
        for product, K, N in model.products:
            first = product == model.products[0][0]
            for r in RANKS if first else (16,):
                for L in ADAPTERS if first else (16,):
                    for T in TOKENS:
                        if L <= max(T, 1):
                            yield Case("sgmv", model, T, L, r, K, N, product)


def moe_cases():
    for model in MODELS:
        for r, L in ((8, 8), (16, 8), (64, 8), (16, 64)):
            for T in TOKENS:
                yield Case("moe_forward", model, T, L, r)


def spread(cases):
    """The same cases, so that what is left out when time is short is spread over all sizes."""
    cases, stride = list(cases), 7
    while len(cases) % stride == 0:
        stride += 2
    return [cases[n * stride % len(cases)] for n in range(len(cases))]


def all_cases():
    """In the order of measuring: three of sgmv, then one of moe_forward."""
    sgmv, moe = spread(sgmv_cases()), spread(moe_cases())
    mixed = []
    while sgmv or moe:
        mixed += sgmv[:3] + moe[:1]
        sgmv, moe = sgmv[3:], moe[1:]
    return mixed
