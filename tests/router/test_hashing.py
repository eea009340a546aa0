import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from router.assignment.hashing import BUCKETS, bucket, fnv1a_32
from router.assignment.vectorised import buckets
from tests.databases import require

DOCS = Path(__file__).parents[2] / "docs"
VECTORS: list[dict[str, Any]] = json.loads((DOCS / "hashing-vectors.json").read_text(encoding="utf-8"))

IN_JAVASCRIPT = """
const vectors = JSON.parse(require("fs").readFileSync(0));
const fnv1a = (bytes) => bytes.reduce((hash, byte) => Math.imul(hash ^ byte, 0x01000193) >>> 0, 0x811c9dc5);
const hash = (text) => fnv1a(Buffer.from(text, "utf8"));
console.log(JSON.stringify(vectors.map(({ seed, unit }) => [hash(seed + unit), hash(`${hash(seed + unit)}`) % 10000])));
"""

IN_ANOTHER_PROCESS = """
import hashlib
from router.assignment.hashing import bucket
text = ",".join(str(bucket("process", f"user-{number}")) for number in range(10_000))
print(hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0x811C9DC5), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)],
)
def test_fnv1a_32_reference_vectors(data: bytes, expected: int) -> None:
    assert fnv1a_32(data) == expected


@pytest.mark.parametrize(
    ("seed", "unit", "expected"),
    [
        ("seed", "a", 505),
        ("seed", "b", 2696),
        ("foo", "ab", 2575),
        ("foo", "def", 2019),
        ("89123klj", "8952klfjas09ujkasdf", 1240),
        ("90850943850283058242805", "123", 7516),
        ("()**(%$##$%#$#", '___)((*":&', 128),
    ],
)
def test_bucket_growthbook_hash_version_2_vectors(seed: str, unit: str, expected: int) -> None:
    assert bucket(seed, unit) == expected


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_bucket_published_vectors(vector: dict[str, Any]) -> None:
    assert fnv1a_32((vector["seed"] + vector["unit"]).encode()) == vector["inner"]
    assert bucket(vector["seed"], vector["unit"]) == vector["bucket"]


def test_buckets_of_published_vectors_are_the_same_for_whole_columns() -> None:
    units = [vector["unit"] for vector in VECTORS]
    for vector in VECTORS:
        assert buckets(vector["seed"], units)[units.index(vector["unit"])] == vector["bucket"]


def test_published_vectors_hold_in_javascript() -> None:
    node = shutil.which("node")
    require("node", None if node else "it is not installed")
    command = [node or "node", "-e", IN_JAVASCRIPT]
    answer = subprocess.run(command, input=json.dumps(VECTORS), capture_output=True, text=True, check=True).stdout
    assert json.loads(answer) == [[vector["inner"], vector["bucket"]] for vector in VECTORS]


def test_guide_shows_published_vectors() -> None:
    known = {(vector["seed"], vector["unit"], vector["bucket"]) for vector in VECTORS}
    rows = re.findall(
        r'^\| `"(.*?)"` \| `(".*?")` \| .* \| (\d+) \|', (DOCS / "assignment.md").read_text(), re.MULTILINE
    )
    shown = {(seed, json.loads(unit), int(number)) for seed, unit, number in rows}
    assert len(shown) >= 8
    assert shown <= known


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_buckets_are_the_same_in_every_process_and_on_every_platform(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    here = ",".join(str(number) for number in buckets("process", [f"user-{number}" for number in range(10_000)]))
    assert printed == hashlib.sha256(here.encode()).hexdigest()
    assert printed == "b97ecf5772889d96c640e97a01570da15e46ebaacb078bf53537164f32f36e16"


UNITS = {
    "counted": [f"user-{number}" for number in range(100_000)],
    "numbers": [str(number) for number in range(100_000)],
    "hexadecimal": [hashlib.sha256(str(number).encode()).hexdigest() for number in range(100_000)],
    "one letter apart": [f"{chr(97 + number % 26)}@{number // 26}.example" for number in range(100_000)],
}


def p_value(counts: np.ndarray[Any, Any], expected: float) -> float:
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1))


# Units and seeds are fixed, so these cannot fail by chance; what they would catch is a hash that is not uniform.


@pytest.mark.parametrize("kind", UNITS)
def test_bucket_is_uniform_under_every_seed(kind: str) -> None:
    p_values = []
    for number in range(40):
        counts = np.bincount(buckets(f"experiment-{number}", UNITS[kind]) // 100, minlength=BUCKETS // 100)
        p_values.append(p_value(counts, len(UNITS[kind]) / 100))
    assert min(p_values) > 0.0001
    assert kstest(p_values, "uniform").pvalue > 0.001


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("first", "second"),
        ("first", "first/traffic"),
        ("a", "b"),
        ("experiment-1", "experiment-2"),
        ("experiment-1", "experiment-10"),
        ("experiment", "experiment-experiment"),
    ],
)
def test_bucket_under_one_seed_tells_nothing_about_another(one: str, other: str, kind: str) -> None:
    tenths = [(buckets(seed, UNITS[kind]) // 1000).astype(int) for seed in (one, other)]
    pairs = np.bincount(10 * tenths[0] + tenths[1], minlength=100).reshape(10, 10)
    expected = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / pairs.sum()
    assert chi2.sf(((pairs - expected) ** 2 / expected).sum(), 81) > 0.001


def test_bucket_reaches_every_bucket() -> None:
    assert len(Counter(buckets("all", UNITS["counted"]).tolist())) == BUCKETS
