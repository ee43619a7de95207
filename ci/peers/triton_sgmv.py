# SPDX-License-Identifier: Apache-2.0
"""A straightforward SGMV in Triton, to compare with: one launch for v = A x, one for y += s B v; a program has a tile of
tokens of one segment, and returns where the segment has no such tile. Nothing is tuned beyond its tile sizes."""
import triton
import triton.language as tl


@triton.jit
def shrink(x, a, v, permutation, offset, adapter, K, r, BM: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr):
    segment, begin = tl.program_id(1), tl.load(offset + tl.program_id(1))
    end = tl.load(offset + segment + 1)
    row = begin + tl.program_id(0) * BM + tl.arange(0, BM)
    which = tl.load(adapter + segment)
    if begin + tl.program_id(0) * BM >= end or which < 0:
        return
    token = tl.load(permutation + row, mask=row < end, other=0)
    rank, ks = tl.arange(0, BR), tl.arange(0, BK)
    total = tl.zeros((BM, BR), dtype=tl.float32)
    for k in range(0, K, BK):
        left = k + ks < K
        of_x = tl.load(x + token[:, None] * K + (k + ks)[None, :], mask=(row < end)[:, None] & left[None, :], other=0.0)
        of_a = tl.load(a + (which * r + rank)[None, :] * K + (k + ks)[:, None],
                       mask=(rank < r)[None, :] & left[:, None], other=0.0)
        total += tl.dot(of_x, of_a)
    tl.store(v + token[:, None] * r + rank[None, :], total, mask=(row < end)[:, None] & (rank < r)[None, :])


@triton.jit
def expand(v, b, y, scaling, permutation, offset, adapter, N, r, BM: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr):
    segment, begin = tl.program_id(1), tl.load(offset + tl.program_id(1))
    end = tl.load(offset + segment + 1)
    row = begin + tl.program_id(0) * BM + tl.arange(0, BM)
    which = tl.load(adapter + segment)
    if begin + tl.program_id(0) * BM >= end or which < 0:
        return
    token = tl.load(permutation + row, mask=row < end, other=0)
    rank, column = tl.arange(0, BR), tl.program_id(2) * BN + tl.arange(0, BN)
    of_v = tl.load(v + token[:, None] * r + rank[None, :], mask=(row < end)[:, None] & (rank < r)[None, :], other=0.0)
    of_b = tl.load(b + (which * N + column)[None, :] * r + rank[:, None],
                   mask=(column < N)[None, :] & (rank < r)[:, None], other=0.0)
    place = y + token[:, None] * N + column[None, :]
    inside = (row < end)[:, None] & (column < N)[None, :]
    before = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    total = before + tl.load(scaling + which) * tl.dot(of_v.to(of_b.dtype), of_b)
    tl.store(place, total.to(y.dtype.element_ty), mask=inside)


def run(batch):
    """`batch` as of sgmv_peers.Batch; v travels as fp32."""
    BM, BR, BN = 16, max(16, triton.next_power_of_2(batch.r)), 64
    tiles, segments = triton.cdiv(batch.T, BM), batch.adapter.numel()
    shrink[(tiles, segments)](batch.x, batch.a, batch.v32, batch.permutation, batch.offset, batch.adapter, batch.K, batch.r,
                              BM=BM, BR=BR, BK=64)
    expand[(tiles, segments, triton.cdiv(batch.N, BN))](batch.v32, batch.b, batch.y, batch.scaling, batch.permutation,
                                                        batch.offset, batch.adapter, batch.N, batch.r,
                                                        BM=BM, BR=BR, BN=BN)
