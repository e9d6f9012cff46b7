"""DICOM slices written by hand: GDCM's writer would mend what the tests want broken."""

import struct

import numpy as np

SHAPE = (4, 3, 5)
HU = (np.arange(60).reshape(SHAPE) * 20 - 1000).astype(np.int16)
STORED = HU + np.int16(1024)
CT = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = "1\\0\\0\\0\\1\\0"
SECRET = "SECRET^NAME"


def element(tag, kind, value):
    """One data element, explicit VR little endian."""
    if isinstance(value, str):
        value = value.encode("latin-1")
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in ("OB", "OW") else struct.pack("<H", len(value))
    return struct.pack("<HH", *tag) + kind.encode() + length + value


def dicom(folder, name, stored, position, **tags):
    """Writes one slice of stored values (y, x[, rgb]), pixels of 0.8 x 0.7 mm; `tags` change or remove the defaults.

    By hand, as GDCM's writer mends what these tests want broken.
    """
    uid = f"1.2.3.{sum(name.encode())}.{len(name)}"
    color = stored.ndim == 3 and stored.shape[-1] == 3
    frames = 1 if stored.ndim == 2 or color else len(stored)
    rows, columns = stored.shape[:2] if color else stored.shape[-2:]
    bits = 8 * stored.dtype.itemsize
    u2 = lambda value: struct.pack("<H", value)  # noqa: E731
    elements = {
        "kind": ((0x0008, 0x0008), "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        "sop": ((0x0008, 0x0016), "UI", CT),
        "uid": ((0x0008, 0x0018), "UI", uid),
        "modality": ((0x0008, 0x0060), "CS", "CT"),
        "patient": ((0x0010, 0x0010), "PN", SECRET),
        "tilt": ((0x0018, 0x1120), "DS", ""),
        "study": ((0x0020, 0x000D), "UI", "1.2"),
        "series": ((0x0020, 0x000E), "UI", "1.2.3"),
        "position": ((0x0020, 0x0032), "DS", "\\".join(f"{v:.6f}" for v in position)),
        "orientation": ((0x0020, 0x0037), "DS", AXIAL),
        "samples": ((0x0028, 0x0002), "US", u2(3 if color else 1)),
        "photometric": ((0x0028, 0x0004), "CS", "RGB" if color else "MONOCHROME2"),
        "planar": ((0x0028, 0x0006), "US", u2(0)),
        "frames": ((0x0028, 0x0008), "IS", str(frames)),
        "rows": ((0x0028, 0x0010), "US", u2(rows)),
        "columns": ((0x0028, 0x0011), "US", u2(columns)),
        "spacing": ((0x0028, 0x0030), "DS", "0.8\\0.7"),
        "allocated": ((0x0028, 0x0100), "US", u2(bits)),
        "bits": ((0x0028, 0x0101), "US", u2(bits)),
        "high": ((0x0028, 0x0102), "US", u2(bits - 1)),
        "signed": ((0x0028, 0x0103), "US", u2(int(stored.dtype.kind == "i"))),
        "intercept": ((0x0028, 0x1052), "DS", "-1024"),
        "slope": ((0x0028, 0x1053), "DS", "1"),
        "type": ((0x0028, 0x1054), "LO", None),
        "pixels": ((0x7FE0, 0x0010), "OW", stored.tobytes()),
    }
    assert tags.keys() <= elements.keys()
    values = {field: tags.get(field, value) for field, (_, _, value) in elements.items()}
    body = b"".join(element(*elements[f][:2], value) for f, value in values.items() if value is not None)
    meta = element((2, 1), "OB", b"\0\1") + element((2, 2), "UI", values["sop"]) + element((2, 3), "UI", uid)
    meta += element((2, 0x10), "UI", "1.2.840.10008.1.2.1") + element((2, 0x12), "UI", "1.2.3.4")
    length = element((2, 0), "UL", struct.pack("<I", len(meta)))
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(bytes(128) + b"DICM" + length + meta + body)
    return folder / name


def series(folder, heights=(10, 15, 20, 25), prefix="s", array=STORED, **tags):
    """Slices of `array` at `heights` mm, whose names tell nothing about their order."""
    for i, z in enumerate(heights):
        dicom(folder, f"{prefix}{(7 * i + 3) % 11:02}.dcm", array[i], (-30, -20, z), **tags)
    return folder
