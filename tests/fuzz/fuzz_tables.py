"""Fuzz target: of a broken `cases.csv` or `dataset.json` come cases within its folder or one line."""

import json
import random
import tempfile
from pathlib import Path

from preprocess.layouts import find_cases, list_cases
from tests.fuzz.common import expected_errors, main, mutated

_NAMES = ("liver_0", "liver_1", "a b", "\u809d")
_WORDS = (
    *(b"../", b"/etc/passwd", b"imagesTr/liver_0.nii", b"labelsTr", b".", b"loop.nii", b"link.nii", b"C:\\a.nii"),
    *(b"\0", b"\n", b'"', b"'", b",", b"\\", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"[", b"{"),
    *(b"null", b"1e999", b"9" * 5000, b"[" * 3000, b"x" * 3000, b"=1+1", b"none"),
)


def seeds() -> list[bytes]:
    """A table, a table with every column, and a `dataset.json` of MSD and of nnU-Net."""
    pairs = [(f"imagesTr/{name}.nii", f"labelsTr/{name}.nii") for name in _NAMES]
    rows = [f"{name},{image},{label}" for name, (image, label) in zip(_NAMES, pairs, strict=True)]
    full = [f'"{row.split(",")[0]}",{row.split(",", 1)[1]},P{n},expert,none' for n, row in enumerate(rows)]
    training = [{"image": f"./{image}", "label": f"./{label}"} for image, label in pairs]
    tables = [
        "\n".join(["case,image,label", *rows]),
        "\r\n".join(["case,image,label,patient,liver_label,tumor_label", *full]),
    ]
    described = [{"labels": {"0": "background", "2": "cancer"}, "training": training}, {"labels": {"tumor": [2]}}]
    return [b"csv\n" + text.encode() for text in tables] + [b"json\n" + json.dumps(d).encode() for d in described]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Random bytes changed, or a word of `_WORDS` put in; the first line stays."""
    head, _, body = content.partition(b"\n")
    if rng.random() < 0.4:
        return head + b"\n" + mutated(body, rng)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(body) + 1)
        body = body[:at] + rng.choice(_WORDS) + body[at + rng.choice((0, 0, 1, 8)) :]
    return head + b"\n" + body


def check(content: bytes, folder: Path) -> None:
    """The property: cases of files that exist, those of a `dataset.json` inside of its folder; or a CascadeError."""
    kind, _, body = content.partition(b"\n")
    # Several inputs may share one folder.
    folder = Path(tempfile.mkdtemp(dir=folder))
    root = folder / "set"
    for name in _NAMES:
        for kind_of in ("imagesTr", "labelsTr"):
            path = root / kind_of / f"{name}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{kind_of} {name}")
    (root / "imagesTr/loop.nii").symlink_to(root / "imagesTr/loop.nii")
    (folder / "secret.nii").write_text("secret")
    (root / "imagesTr/link.nii").symlink_to(folder / "secret.nii")
    (root / ("cases.csv" if kind == b"csv" else "dataset.json")).write_bytes(body)
    source = root / "cases.csv" if kind == b"csv" else root
    with expected_errors():
        listing = list_cases(source)
        for text in (*listing.faults, *(finding.text for finding in listing.findings())):
            assert "\n" not in text
    with expected_errors():
        cases = find_cases(source)
        assert cases
        assert all(case.image.exists() and case.patient for case in cases)
        assert len({case.name for case in cases}) == len(cases)
        if kind == b"json" and b'"training"' in body:
            assert all(case.image.resolve().is_relative_to(root.resolve()) for case in cases)


if __name__ == "__main__":
    main(check, seeds(), mutate)
