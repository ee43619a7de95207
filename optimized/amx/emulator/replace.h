// SPDX-License-Identifier: Apache-2.0
// The tile intrinsics of <immintrin.h> as calls of the emulator, in place of instructions: sanitizers then
// see each byte that a load or store touches. Include it after <immintrin.h>; no -mamx flag is needed. The
// rest stays as with instructions: cm_amx_emulate_enable (unless the processor has tiles),
// cm_amx_request_permission, faults as SIGILL and SIGSEGV. Tiles may be variables.
#ifndef CM_AMX_REPLACE_H
#define CM_AMX_REPLACE_H

#include "optimized/amx/emulator/decode.h"

#ifdef __cplusplus
extern "C" {
#endif

void cm_amx_call(cm_amx_operation operation, int c, int a, int b);
// stride in bytes; unused by ldtilecfg and sttilecfg
void cm_amx_call_memory(cm_amx_operation operation, int tile, const void *base, int64_t stride);

#ifdef __cplusplus
}
#endif

#undef _tile_loadconfig
#undef _tile_storeconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpfp16ps
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud

#define _tile_loadconfig(config)               cm_amx_call_memory(CM_AMX_LDTILECFG, 0, config, 0)
#define _tile_storeconfig(config)              cm_amx_call_memory(CM_AMX_STTILECFG, 0, config, 0)
#define _tile_release()                        cm_amx_call(CM_AMX_TILERELEASE, 0, 0, 0)
#define _tile_zero(tile)                       cm_amx_call(CM_AMX_TILEZERO, tile, 0, 0)
#define _tile_loadd(tile, base, stride)        cm_amx_call_memory(CM_AMX_TILELOADD, tile, base, stride)
#define _tile_stream_loadd(tile, base, stride) cm_amx_call_memory(CM_AMX_TILELOADDT1, tile, base, stride)
#define _tile_stored(tile, base, stride)       cm_amx_call_memory(CM_AMX_TILESTORED, tile, base, stride)
#define _tile_dpbf16ps(c, a, b)                cm_amx_call(CM_AMX_TDPBF16PS, c, a, b)
#define _tile_dpfp16ps(c, a, b)                cm_amx_call(CM_AMX_TDPFP16PS, c, a, b)
#define _tile_dpbssd(c, a, b)                  cm_amx_call(CM_AMX_TDPBSSD, c, a, b)
#define _tile_dpbsud(c, a, b)                  cm_amx_call(CM_AMX_TDPBSUD, c, a, b)
#define _tile_dpbusd(c, a, b)                  cm_amx_call(CM_AMX_TDPBUSD, c, a, b)
#define _tile_dpbuud(c, a, b)                  cm_amx_call(CM_AMX_TDPBUUD, c, a, b)

#endif
