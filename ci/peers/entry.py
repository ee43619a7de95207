# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels of checkmoe on torch's tensors, through libcheckmoe_entry.so (entry.h)."""
import ctypes

DTYPES = {"torch.bfloat16": "bf16", "torch.float16": "f16", "torch.float32": "f32", "torch.int32": "i32"}


class Unavailable(Exception):
    """There is no such kernel, or it does not take this call; says why."""


class Library:
    def __init__(self, path):
        c = self.c = ctypes.CDLL(path)
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
        c.checkmoe_open.restype, c.checkmoe_open.argtypes = pointer, [text, text, ctypes.c_size_t]
        c.checkmoe_tensor.argtypes = [pointer, text, pointer, text, ctypes.c_int, ctypes.POINTER(number),
                                      ctypes.POINTER(number)]
        c.checkmoe_attribute.argtypes = [pointer, text, ctypes.c_double]
        c.checkmoe_dim.argtypes = [pointer, ctypes.c_char, number]
        c.checkmoe_scratch.argtypes = [pointer, pointer, ctypes.c_size_t]
        c.checkmoe_prepare.argtypes = [pointer]
        c.checkmoe_run.argtypes = [pointer, pointer]
        c.checkmoe_scratch_used.restype, c.checkmoe_scratch_used.argtypes = ctypes.c_size_t, [pointer]
        c.checkmoe_error.restype, c.checkmoe_error.argtypes = text, [pointer]
        c.checkmoe_close.restype, c.checkmoe_close.argtypes = None, [pointer]


class Call:
    """One call of a kernel; keeps its tensors. dims: letter -> extent."""

    def __init__(self, library, kernel, tensors, dims, attributes=None, scratch=None):
        self.c, self.kept = library.c, (tensors, scratch)
        self.handle = None
        error = ctypes.create_string_buffer(512)
        self.handle = self.c.checkmoe_open(kernel.encode(), error, len(error))
        if not self.handle:
            raise Unavailable(error.value.decode())
        for name, tensor in tensors.items():
            array = ctypes.c_int64 * tensor.dim()
            self.must(self.c.checkmoe_tensor(self.handle, name.encode(), tensor.data_ptr(),
                                             DTYPES[str(tensor.dtype)].encode(), tensor.dim(),
                                             array(*tensor.shape), array(*tensor.stride())))
        for letter, extent in dims.items():
            self.must(self.c.checkmoe_dim(self.handle, letter.encode(), extent))
        for name, value in (attributes or {}).items():
            self.must(self.c.checkmoe_attribute(self.handle, name.encode(), value))
        if scratch is not None:
            self.must(self.c.checkmoe_scratch(self.handle, scratch.data_ptr(), scratch.numel()))
        self.must(self.c.checkmoe_prepare(self.handle))

    def must(self, status):
        if status:
            raise Unavailable(self.c.checkmoe_error(self.handle).decode())

    def run(self, stream=0):
        if self.c.checkmoe_run(self.handle, stream):
            raise RuntimeError(self.c.checkmoe_error(self.handle).decode())

    def __del__(self):
        if self.handle:
            self.c.checkmoe_close(self.handle)
            self.handle = None
