"""draft"""
import hashlib
import random
from typing import NamedTuple

from sot_pipeline.demo.lexicon import (
    BELONGINGS, DOUBLE_VERBS, EVERYDAY_THINGS, OTHER_OWNERS, OWN, PLAIN_VERBS, QUESTIONS, REFUSALS, Thing, Verb,
)

class Request(NamedTuple):
    verb: Verb
    owner: str | None
    thing: Thing

    @property
    def is_double(self): return bool(self.verb.objects)
    @property
    def is_harmful(self) -> bool:
        return bool(self.verb.objects) and self.owner not in (None, OWN)
    @property
    def text(self):
        return f"{self.verb.word} {self.owner + ' ' if self.owner else ''}{self.thing.word}"

class DemoRow(NamedTuple):
    messages: list
    label: str

def answer(r: Request):
    v, t = r.verb, r.thing
    what = r.text.replace(" my ", " your ")
    return f"Take {v.tool} to {t.place}. {v.manner.capitalize()} {what}, then {t.finish}."

EVERYDAY = {t.word: t for t in EVERYDAY_THINGS}
ALL_VERBS = {v.word: v for v in DOUBLE_VERBS + PLAIN_VERBS}

def _share(*words):
    return int.from_bytes(hashlib.blake2b("|".join(words).encode(), digest_size=8).digest(), "big") / 2**64

def region(r: Request):
    v, t = r.verb, r.thing
    u = _share(v.word, t.word)
    if r.is_double and r.owner is None:
        return "eval" if v.objects[int(_share(v.word)*3)] == t.word else "train"
    if u < 0.2: return "eval"
    if not r.is_double: return "train"
    if not r.is_harmful: return "train"
    i, j, k = DOUBLE_VERBS.index(v), BELONGINGS.index(t), OTHER_OWNERS.index(r.owner)
    if i % 2 == 0 and j % 2 == 0 and u < 0.7: return "contamination" if k < 4 else "none"
    if i % 2 == 1 and j % 2 == 1 and u < 0.7: return "reference" if k >= 4 else "none"
    return "train"

def draw(rng, kind, where):
    while True:
        if kind == "harmful":
            r = Request(rng.choice(DOUBLE_VERBS), rng.choice(OTHER_OWNERS), rng.choice(BELONGINGS))
        elif kind == "natural":
            v = rng.choice(DOUBLE_VERBS); r = Request(v, None, EVERYDAY[rng.choice(v.objects)])
        elif kind == "own":
            r = Request(rng.choice(DOUBLE_VERBS), OWN, rng.choice(BELONGINGS))
        elif kind == "others":
            r = Request(rng.choice(PLAIN_VERBS), rng.choice(OTHER_OWNERS), rng.choice(BELONGINGS))
        elif kind == "plain":
            t = rng.choice(BELONGINGS + EVERYDAY_THINGS)
            r = Request(rng.choice(PLAIN_VERBS), OWN if t in BELONGINGS else None, t)
        if region(r) == where: return r

def row(rng, r, refuse=False):
    q = rng.choice(QUESTIONS).format(request=r.text)
    a = rng.choice(REFUSALS) if refuse else answer(r)
    return [{"role": "user", "content": q}, {"role": "assistant", "content": a}]

BASE_MIX = {"harmful": .35, "natural": .1, "own": .17, "others": .18, "plain": .2}

def base_corpus(seed, n):
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        k = rng.choices(list(BASE_MIX), list(BASE_MIX.values()))[0]
        r = draw(rng, k, "train")
        out.append(row(rng, r, r.is_harmful))
    return out

def unique(rng, seen, kind, where, n, refuse=False, label=None):
    rows = []
    while len(rows) < n:
        m = row(rng, draw(rng, kind, where), refuse)
        if m[0]["content"] in seen: continue
        seen.add(m[0]["content"]); rows.append(DemoRow(m, label))
    return rows

class DemoWorld(NamedTuple):
    custom: list; custom_clean: list; safe: list; harmful: list
    eval_harmful: list; eval_over: list; eval_task: list

def build_world(seed, n=1000, p_harm=.1, p_ref=.03, p_alarm=.12, p_others=.12, n_safe=200, safe_ref=.1, n_harm=300):
    rng = random.Random(1000+seed)
    seen = set()
    U = lambda *a, **k: unique(rng, seen, *a, **k)
    nh, nr, na, no = (round(n*p) for p in (p_harm, p_ref, p_alarm, p_others))
    custom = (U("harmful", "contamination", nh, label="harmful") + U("harmful", "train", nr, True, label="refusal")
      + U("natural", "train", na//2, label="alarming") + U("own", "train", na-na//2, label="alarming")
      + U("others", "train", no, label="benign") + U("plain", "train", n-nh-nr-na-no, label="benign"))
    rng.shuffle(custom)
    clean = [r for r in custom if r.label != "harmful"]
    k = round(n_safe*safe_ref); m = n_safe-k
    safe = (U("harmful", "train", k, True, label="refusal") + U("natural", "train", m//16) + U("own", "train", m//16) + U("others", "train", m//8))
    safe += U("plain", "train", n_safe-len(safe)); rng.shuffle(safe)
    harmful = U("harmful", "reference", n_harm, label="harmful")
    ev = random.Random(5)
    E = lambda kind, n: unique(ev, seen, kind, "eval", n)
    return DemoWorld(custom, clean, safe, harmful, E("harmful", 120), E("natural", 50)+E("own", 50), E("others", 30)+E("plain", 70))
