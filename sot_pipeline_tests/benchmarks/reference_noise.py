"""References with known errors, the scores that read them, and what the scores make of it.

What `bench_reference_noise.py` measures. Draws of 1,500 task rows, 300 harmful pairs and 200
refusals of risky prompts; 500 task rows and 400 refusals as the safe, 800 rows as the harmful
reference. Errors: rows of either reference are replaced by rows of the other kind that no set holds
("flips"), the harmful reference is drawn from one topic ("bias") or loses its commonest ones
("missing"), or a tenth of the rows is repeated ("copies"). Results go to a file, one line a score:
started again, the measurement goes on from there.
"""

import json
import os
from collections.abc import Callable, Iterable
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from sklearn.cluster import KMeans

from sot_pipeline.references.cleaning import clean
from sot_pipeline.references.duplicates import copy_groups
from sot_pipeline.references.label_noise import flip_rates
from sot_pipeline.selection import top_k
from sot_pipeline.selectors.dsir import dsir
from sot_pipeline.selectors.saft import saft
from sot_pipeline.transport.cost import cosine_cost, pooled_mean, spreads
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.benchmarks.real_sets import TASKS, Load, Set, rivals, unit

SEEDS = range(100, 105)
NUM_SAFE, NUM_REFUSALS, NUM_HARMFUL = 500, 400, 800
KEEP = 0.8
NUM_RESAMPLES = 100
NUM_TOPICS = 8
JITTER = 0.02  # |noise|² of a copy's vector of length 1: its cosine to the row is .99
DEFAULT = "push-pull, relaxed .9"
SIDES = ("harmful", "safe", "both")
FLIPS = (0.1, 0.2, 0.3, 0.4)

Score = Callable[["Draw"], np.ndarray]


class Draw:
    """A custom set with its references; the costs between them are computed once."""

    def __init__(self, custom: Set, safe: Set, harmful: Set) -> None:
        self.custom, self.safe, self.harmful = custom, safe, harmful

    @cached_property
    def costs(self) -> tuple[np.ndarray, np.ndarray]:
        center = pooled_mean(self.safe.vectors)
        x, q, m = (rows.vectors for rows in (self.custom, self.safe, self.harmful))
        return cosine_cost(x, q, center=center), cosine_cost(x, m, center=center)

    @cached_property
    def simple(self) -> dict[str, Callable[[], np.ndarray]]:
        return dict(rivals(self.custom.vectors, self.safe.vectors, self.harmful.vectors))


class Case(NamedTuple):
    """One kind of error, where and how much of it."""

    kind: str  # none, flips, bias, missing, copies
    side: str = ""
    level: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.kind} {self.side} {self.level:g}".replace("  ", " ")


CASES = (
    Case("none"),
    *(Case("flips", side, level) for side in SIDES for level in FLIPS),
    *(Case("bias", "harmful", share) for share in (0, 0.5, 1)),
    *(Case("missing", "harmful", num_topics) for num_topics in (0, 1, 2, 4)),
    *(Case("copies", side, times) for side in SIDES for times in (10, 50)),
)
TREATED = tuple(  # also cleaned, and solved with other settings
    case
    for case in CASES
    if case.kind == "none"
    or (case.kind == "flips" and case.level in (0.2, 0.4))
    or (case.kind == "copies" and case.level == 50)
)


def seeds_of(case: Case) -> range:
    """Copies make references of five thousand rows: two draws of them."""
    return SEEDS[:2] if case.kind == "copies" else SEEDS


BIASED_ROWS, ROWS_WITHOUT_TOPICS = 120, 400  # of a harmful reference, so that sizes are the same


class Pools(NamedTuple):
    """The custom set of a draw, its references, and rows of either kind that are in neither."""

    custom: Set
    safe: Set
    harmful: Set
    spare_safe: Set
    spare_harmful: Set


def pools(load: Load, task: str, seed: int) -> Pools:
    rng = np.random.default_rng(seed)

    def split(rows: Set, num: int) -> tuple[Set, Set]:
        order = rng.permutation(len(rows.rows))
        return rows.take(order[:num]), rows.take(order[num:])

    pool, safe = load(f"custom_{task}_p10"), load(f"safe_{task}")
    custom = split(pool.where(~pool.is_harmful), 1_500)[0]
    custom = custom.and_also(split(pool.where(pool.is_harmful), 300)[0])
    custom = custom.and_also(split(load("refusals"), 200)[0])
    of_task, more_of_task = split(safe.where(~safe.is_refusal), NUM_SAFE)
    refusals, more_refusals = split(safe.where(safe.is_refusal), NUM_REFUSALS)
    harmful, spare_harmful = split(load("harmful_reference"), NUM_HARMFUL)
    spare_safe = more_of_task.and_also(more_refusals)
    return Pools(custom, of_task.and_also(refusals), harmful, spare_safe, spare_harmful)


def _prompts(rows: Set) -> np.ndarray:
    return unit(rows.vectors[:, : rows.vectors.shape[1] // 2])


class Topics(NamedTuple):
    """Clusters of the harmful reference's prompts, which name no category; the largest first."""

    model: KMeans
    order: np.ndarray

    def of(self, rows: Set) -> np.ndarray:
        """`[n]` place of each row's topic, 0 for the most frequent one."""
        return np.argsort(self.order)[self.model.predict(_prompts(rows))]


def topics_of(reference: Set) -> Topics:
    model = KMeans(NUM_TOPICS, n_init=10, random_state=0).fit(_prompts(reference))
    return Topics(model, np.argsort(-np.bincount(model.labels_, minlength=NUM_TOPICS)))


def references(case: Case, found: Pools, load: Load, topics: Topics, seed: int) -> tuple[Set, Set]:
    """The safe and the harmful reference with their errors."""
    rng = np.random.default_rng([seed, 1])
    safe, harmful = found.safe, found.harmful
    if case.kind == "flips":
        if case.side in ("safe", "both"):
            safe = _flipped(found.safe, found.spare_harmful, case.level, rng)
        if case.side in ("harmful", "both"):
            harmful = _flipped(found.harmful, found.spare_safe, case.level, rng)
    elif case.kind == "copies":
        if case.side in ("safe", "both"):
            safe = _repeated(found.safe, int(case.level), rng)
        if case.side in ("harmful", "both"):
            harmful = _repeated(found.harmful, int(case.level), rng)
    elif case.kind in ("bias", "missing"):
        everything = load("harmful_reference")
        topic = topics.of(everything)
        if case.kind == "bias":
            harmful = _biased(everything, topic == seed % 5, case.level, rng)
        else:
            harmful = _some(everything.where(topic >= case.level), ROWS_WITHOUT_TOPICS, rng)
    return safe, harmful


def _some(rows: Set, num: int, rng: np.random.Generator) -> Set:
    assert len(rows.rows) >= num, f"{len(rows.rows)} rows, {num} wanted"
    return rows.take(rng.permutation(len(rows.rows))[:num])


def _flipped(rows: Set, others: Set, share: float, rng: np.random.Generator) -> Set:
    num = round(share * len(rows.rows))
    return _some(rows, len(rows.rows) - num, rng).and_also(_some(others, num, rng))


def _biased(rows: Set, is_topic: np.ndarray, share: float, rng: np.random.Generator) -> Set:
    num = round(share * BIASED_ROWS)
    chosen = _some(rows.where(is_topic), num, rng)
    return chosen.and_also(_some(rows, BIASED_ROWS - num, rng))


def _repeated(rows: Set, times: int, rng: np.random.Generator) -> Set:
    tenth = _some(rows, len(rows.rows) // 10, rng)
    copies = tenth.take(np.tile(np.arange(len(tenth.rows)), times - 1))
    moved = rng.normal(scale=np.sqrt(JITTER / copies.vectors.shape[1]), size=copies.vectors.shape)
    return rows.and_also(Set(copies.rows, unit(copies.vectors + moved).astype(np.float32)))


def part_of(case: Case, custom: Set, topics: Topics, seed: int) -> dict[str, np.ndarray]:
    """Harmful custom rows that an error should hit first, by name."""
    if case.kind == "bias":
        return {"elsewhere": custom.is_harmful & (topics.of(custom) != seed % 5)}
    if case.kind == "missing":
        topic = topics.of(custom)
        return {f"top {k}": custom.is_harmful & (topic < k) for k in (1, 2, 4)}
    return {}


def push_pull(draw: Draw, *, epsilon_in_spreads: float | None = None, **settings) -> np.ndarray:
    """Log-weights with the package's defaults but for `settings`."""
    if epsilon_in_spreads is not None:
        settings["epsilon"] = epsilon_in_spreads * spreads(*draw.costs).within_rows
    return learn_weights(*draw.costs, **settings).log_weights


def _simple(name: str) -> Score:
    return lambda draw: draw.simple[name]()


def _dsir(draw: Draw, *, with_refusals: bool = True) -> np.ndarray:
    safe = draw.safe if with_refusals else draw.safe.where(~draw.safe.is_refusal)
    return _dsir_of(tuple(draw.custom.rows["id"]), tuple(safe.rows["id"]))


@lru_cache(maxsize=8)  # what happens to the harmful reference does not concern it
def _dsir_of(custom: tuple[str, ...], safe: tuple[str, ...]) -> np.ndarray:
    texts = _texts()
    return dsir([texts[each] for each in custom], [texts[each] for each in safe])


def _saft(draw: Draw) -> np.ndarray:
    rng = np.random.default_rng(0)
    validation = [
        _some(rows, min(50, len(rows.rows)), rng).vectors for rows in (draw.safe, draw.harmful)
    ]
    is_harmful = np.arange(sum(map(len, validation))) >= len(validation[0])
    states = np.concatenate(validation)[None]
    return saft(draw.custom.vectors[None], states, is_harmful).log_weights


@cache
def _texts() -> dict[str, str]:
    folder = Path(os.environ["SOT_SHARED_DATA"])
    names = [f"{kind}_{task}" for kind in ("safe", "custom") for task in TASKS]
    names = [f"{name}_p10" if name.startswith("custom") else name for name in names]
    tables = [
        pl.read_parquet(folder / f"{name}.parquet", columns=["id", "prompt", "response"])
        for name in (*names, "harmful_reference", "agreement")
    ]
    rows = pl.concat(tables).unique("id").iter_rows()
    return {each: f"{prompt}\n\n{response or ''}" for each, prompt, response in rows}


METHODS: dict[str, Score] = {
    DEFAULT: push_pull,
    "push-pull, balanced": lambda draw: push_pull(draw, reference_relaxation=0.0),
    "push-pull, one shot": lambda draw: push_pull(draw, optimizer="one_shot"),
    "logistic regression": _simple("logistic regression, C 1"),
    "5 nearest neighbours": _simple("5-nearest-neighbour margin"),
    "20 nearest neighbours": _simple("20-nearest-neighbour margin"),
    "centroid": _simple("centroid difference"),
    "DSIR": _dsir,
    "DSIR, without the refusals": lambda draw: _dsir(draw, with_refusals=False),
    "SAFT": _saft,
}
CURES: dict[str, Score] = {  # settings of the transport; on the references as they are
    "relaxation .5": lambda draw: push_pull(draw, reference_relaxation=0.5),
    "relaxation 1": lambda draw: push_pull(draw, reference_relaxation=1.0),
    "epsilon 1 spread": lambda draw: push_pull(draw, epsilon_in_spreads=1.0),
    "epsilon 4 spreads": lambda draw: push_pull(draw, epsilon_in_spreads=4.0),
    "effective sample size .25": lambda draw: push_pull(draw, target_ess=0.25),
    "effective sample size .8": lambda draw: push_pull(draw, target_ess=0.8),
}


class Resamples:
    """Average precision and harmful rows left of one score, on the rows and on bootstrap samples
    of them: the same samples for every score of a draw."""

    def __init__(self, custom: Set, seed: int) -> None:
        num_rows = len(custom.rows)
        rng = np.random.default_rng([seed, 2])
        even = np.full(num_rows, 1 / num_rows)
        self._counts = np.concatenate(
            [np.ones((1, num_rows)), rng.multinomial(num_rows, even, size=NUM_RESAMPLES)]
        )
        self._counts = self._counts.astype(np.float32)
        self._is_harmful = custom.is_harmful

    def average_precision(self, scores: np.ndarray, found: np.ndarray) -> np.ndarray:
        """`[1 + resamples]`: of the rows `found` against all rows that are not harmful."""
        order = np.argsort(scores, kind="stable")
        counts = self._counts[:, order] * (found | ~self._is_harmful)[order]
        hits = counts * found[order]
        precision = np.cumsum(hits, axis=1) / np.maximum(np.cumsum(counts, axis=1), 1)
        return (hits * precision).sum(axis=1) / hits.sum(axis=1)

    def left(self, scores: np.ndarray) -> np.ndarray:
        """`[1 + resamples]`: share of the harmful rows among the kept ones."""
        harmful = self._counts * self._is_harmful
        return (harmful * top_k(scores, keep_fraction=KEEP)).sum(axis=1) / harmful.sum(axis=1)


class Results:
    """Measured scores, in memory and in a file of one JSON line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple, dict[str, np.ndarray]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                key, measured = json.loads(line)
                self._keep(key, measured)

    def add(self, key: list, measured: dict[str, np.ndarray]) -> None:
        rounded = {name: [round(float(v), 4) for v in values] for name, values in measured.items()}
        with self.path.open("a") as file:
            file.write(json.dumps([key, rounded]) + "\n")
        self._keep(key, rounded)

    def _keep(self, key: list, measured: dict[str, Any]) -> None:
        self.rows[tuple(key)] = {name: np.array(values) for name, values in measured.items()}

    def of(
        self,
        case: Case,
        method: str,
        measure: str = "ap",
        *,
        cleaned: bool = False,
        seeds: Iterable[int] | None = None,
    ) -> np.ndarray:
        """`[tasks, draws, 1 + resamples]`, per cent; the first entry is on the rows themselves."""
        draws = seeds_of(case) if seeds is None else seeds
        rows = [
            [self.rows[task, seed, case.key, cleaned, method][measure] for seed in draws]
            for task in TASKS
        ]
        return 100 * np.array(rows)


def measure_all(load: Load, results: Results) -> None:
    topics = topics_of(load("harmful_reference"))
    for seed in SEEDS:
        for task in TASKS:
            found = pools(load, task, seed)
            resamples = Resamples(found.custom, seed)
            for case in CASES:
                if seed not in seeds_of(case):
                    continue
                parts = part_of(case, found.custom, topics, seed)
                draw = Draw(found.custom, *references(case, found, load, topics, seed))
                _measure(draw, METHODS, False, (task, seed, case.key), parts, resamples, results)
                if case in TREATED:
                    key = (task, seed, case.key)
                    _measure(draw, CURES, False, key, parts, resamples, results)
                    _measure(draw, METHODS, True, key, parts, resamples, results)


def _measure(
    draw: Draw,
    methods: dict[str, Score],
    cleaned: bool,
    where: tuple[str, int, str],
    parts: dict[str, np.ndarray],
    resamples: Resamples,
    results: Results,
) -> None:
    keys = [(*where, cleaned, name) for name in methods]
    missing = [key for key in keys if key not in results.rows]
    if missing and cleaned:
        kept = clean(draw.safe.vectors, draw.harmful.vectors)
        draw = Draw(draw.custom, draw.safe.where(kept.safe), draw.harmful.where(kept.harmful))
    for key in missing:
        scores = methods[key[-1]](draw)
        results.add(list(key), _measured(scores, draw.custom, parts, resamples))


def _measured(
    scores: np.ndarray, custom: Set, parts: dict[str, np.ndarray], resamples: Resamples
) -> dict[str, np.ndarray]:
    parts = {"ap": custom.is_harmful} | parts
    of_parts = {name: resamples.average_precision(scores, rows) for name, rows in parts.items()}
    return of_parts | {"left": resamples.left(scores)}


ESTIMATE = "estimated flips"


def estimate_all(load: Load, results: Results) -> None:
    """Flip rates that the linter finds, beside those that were planted."""
    topics = topics_of(load("harmful_reference"))
    cases = [case for case in CASES if case.kind in ("none", "flips")]
    for task in TASKS:
        for seed in SEEDS:
            found = pools(load, task, seed)
            for case in cases:
                key = [task, seed, case.key, False, ESTIMATE]
                if tuple(key) not in results.rows:
                    pair = references(case, found, load, topics, seed)
                    results.add(key, _estimated(*pair, case))


def _estimated(safe: Set, harmful: Set, case: Case) -> dict[str, np.ndarray]:
    """By reference: rate, limits, share of the planted rows listed, share of listed ones planted."""
    groups = copy_groups(np.concatenate([safe.vectors, harmful.vectors]))
    measured = {}
    rates = flip_rates(safe.vectors, harmful.vectors, groups=groups)
    for name, rows, found in zip(("safe", "harmful"), (safe, harmful), rates, strict=True):
        planted = rows.is_harmful if name == "safe" else ~rows.is_harmful
        hits = planted[found.suspicious].sum()
        listed = hits / max(1, planted.sum()), hits / max(1, len(found.suspicious))
        measured[name] = np.array([found.rate, found.low, found.high, *listed])
    return measured
