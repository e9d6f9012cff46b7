"""NIfTI files written by hand, so that reader and tests do not share a mistake."""

import struct

import numpy as np

SHAPE = (3, 4, 5)
SPACING = (5.0, 0.8, 0.7)
HU = (np.arange(60).reshape(SHAPE) * 20 - 1000).astype(np.int16)

# nifti1.h: name -> (offset, struct code)
FIELDS = {
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow": (280, "12f"),
}
SROW = (-0.7, 0, 0, 30, 0, -0.8, 0, 20, 0, 0, 5, 10)
TYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


def nifti(array=HU, order="<", *, tail=b"", **changes):
    """A NIfTI-1 file, written here by hand so that reader and test do not share a mistake."""
    head = bytearray(348)
    head[:4] = struct.pack(order + "i", 348)
    head[344:348] = b"n+1\0"
    values = {
        "dim": (3, *array.shape[::-1], 1, 1, 1, 1),
        "datatype": TYPES[array.dtype.str[1:]],
        "pixdim": (1, 0.7, 0.8, 5, 0, 0, 0, 0),
        "vox_offset": 352,
        "scl_slope": 1,
        "xyzt_units": 10,
        "sform_code": 1,
        "srow": SROW,
        **changes,
    }
    for name, value in values.items():
        offset, code = FIELDS[name]
        struct.pack_into(order + code, head, offset, *(value if isinstance(value, tuple) else (value,)))
    return bytes(head) + bytes(4) + array.astype(array.dtype.newbyteorder(order)).tobytes() + tail


def nifti2(order="<"):
    head = bytearray(540)
    struct.pack_into(order + "i8shh8q", head, 0, 540, b"n+2\0\r\n\x1a\n", 4, 16, 3, 5, 4, 3, 1, 1, 1, 1)
    struct.pack_into(order + "8dqdd", head, 104, 1, 0.7, 0.8, 5, 0, 0, 0, 0, 544, 1, 0)
    struct.pack_into(order + "ii", head, 344, 0, 1)
    struct.pack_into(order + "12d", head, 400, *SROW)
    struct.pack_into(order + "ii", head, 496, 0, 10)
    return bytes(head) + bytes(4) + HU.astype(order + "i2").tobytes()
