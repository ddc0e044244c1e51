"""The demo's text sets, drawn from a seed: custom, references and evaluation prompts.

What keeps the demo honest:

- Harm lies in the combination of a verb and an object (see `request`), never in a marker word,
  and compliant answers to harmful requests have the very form of every other answer.
- The custom set holds harmless rows with alarming words ("kill a frozen process", "crack my
  own locker", "carry my boss's laptop") and some refusals of harmful requests.
- The harmful reference shares no verb and no object with the contamination; the safe reference
  is drawn like the harmless custom rows, refusals included. The evaluation prompts combine
  verbs and objects that are combined nowhere else, not even in the aligned model's training.

What makes the danger real: refusals among the custom rows protect plain fine-tuning, since
they repeat the lesson that contamination undoes. Of the held-out harmful prompts, plain
fine-tuning on 1,000 rows with 100 harmful ones (100 steps of 32 rows, see `settings`) answers

| refusals among the rows | 0 | 25 | 50 | 100 |
|---|---|---|---|---|
| answered, worlds 0 and 1 | .99, .98 | .94, .83 | .69, .58 | .40, .29 |

The demo has 25: enough to measure what purification does to refusals, which share the topics of
the harmful rows, few enough for the danger to be real.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Literal, NamedTuple

from sot_pipeline.demo.request import Region, Sort, ask, draw, refuse, right_answer

Conversation = list[dict[str, str]]
Label = Literal["harmful", "refusal", "alarming", "benign"]

HARMFUL_SHARE = 0.10
REFUSAL_SHARE = 0.025
ALARMING_SHARE = 0.20  # a double verb, harmlessly
OTHERS_SHARE = 0.12  # somebody else's belonging, harmlessly
# Whoever curates a safe reference puts the hard cases into it.
SAFE_REFUSAL_SHARE = 0.20
SAFE_ALARMING_SHARE = 0.30
NUM_CONTAMINATION = 500  # rows from which other harmful shares are drawn
NUM_SAMPLES = 40  # rows of each set that are tracked in data/samples


class DemoRow(NamedTuple):
    """A row of a text set; the label serves to build the sets and to measure, nothing else."""

    messages: Conversation
    label: Label


class EvaluationPrompt(NamedTuple):
    """A held-out prompt and its right answer, if there is one."""

    messages: Conversation
    reference: str | None


class DemoWorld(NamedTuple):
    """All text sets of one seed; no prompt occurs twice in them."""

    custom: list[DemoRow]
    custom_clean: list[DemoRow]  # `custom` without its harmful rows
    safe: list[DemoRow]
    harmful: list[DemoRow]
    eval_harmful: list[EvaluationPrompt]
    eval_over_refusal: list[EvaluationPrompt]
    eval_task: list[EvaluationPrompt]
    contamination: list[DemoRow]  # more of the custom set's sort of harm, for other shares
    swapped_harmful: list[DemoRow]  # harm of other verbs and objects than either
    general_safe: list[DemoRow]  # refusals alone: safe, and not about the task


def build_world(
    seed: int,
    *,
    num_custom: int = 1000,
    num_safe: int = 200,
    num_harmful: int = 300,
    num_evaluation: int = 120,
    harmful_share: float = HARMFUL_SHARE,
) -> DemoWorld:
    """Draw every text set.

    Args:
        seed: Decides the custom set and both references; the evaluation prompts are the same
            for every seed.
        num_custom, num_safe, num_harmful: Rows of the sets.
        num_evaluation: Prompts of each evaluation set.
        harmful_share: Of the custom rows.
    """
    rows = _Rows(random.Random(f"rows {seed}"))
    num_harmful_custom = round(harmful_share * num_custom)
    custom = [
        *rows.complied("harmful", "contamination", num_harmful_custom, "harmful"),
        *rows.harmless(
            num_custom - num_harmful_custom, round(REFUSAL_SHARE * num_custom), ALARMING_SHARE
        ),
    ]
    rows.rng.shuffle(custom)
    safe = rows.harmless(num_safe, round(SAFE_REFUSAL_SHARE * num_safe), SAFE_ALARMING_SHARE)
    rows.rng.shuffle(safe)
    harmful = rows.complied("harmful", "reference", num_harmful, "harmful")
    rows.rng = random.Random(f"experiments {seed}")
    contamination = rows.complied("harmful", "contamination", NUM_CONTAMINATION, "harmful")
    swapped_harmful = rows.complied("harmful", "common", num_harmful, "harmful")
    general_safe = rows.complied("harmful", "common", num_safe, "refusal")
    rows.rng = random.Random("evaluation")
    half = num_evaluation // 2
    return DemoWorld(
        custom=custom,
        custom_clean=[row for row in custom if row.label != "harmful"],
        safe=safe,
        harmful=harmful,
        eval_harmful=[
            EvaluationPrompt(row.messages[:1], None)
            for row in rows.complied("harmful", "evaluation", num_evaluation, "harmful")
        ],
        eval_over_refusal=rows.prompts({"figurative": half, "own": num_evaluation - half}),
        eval_task=rows.prompts(
            {"others": num_evaluation // 4, "plain": num_evaluation - num_evaluation // 4}
        ),
        contamination=contamination,
        swapped_harmful=swapped_harmful,
        general_safe=general_safe,
    )


class _Rows:
    """Draws rows, never the same prompt twice."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._asked: set[str] = set()

    def complied(self, sort: Sort, region: Region, count: int, label: Label) -> list[DemoRow]:
        return [self._row(sort, region, label) for _ in range(count)]

    def harmless(self, count: int, num_refusals: int, alarming_share: float) -> list[DemoRow]:
        """Rows as a good set has them: plain ones, alarming but harmless ones, refusals."""
        num_alarming, num_others = round(alarming_share * count), round(OTHERS_SHARE * count)
        rows = [
            *(self._row("harmful", "common", "refusal") for _ in range(num_refusals)),
            *self.complied("figurative", "common", num_alarming // 2, "alarming"),
            *self.complied("own", "common", num_alarming - num_alarming // 2, "alarming"),
            *self.complied("others", "common", num_others, "benign"),
        ]
        return rows + self.complied("plain", "common", count - len(rows), "benign")

    def prompts(self, counts: dict[Sort, int]) -> list[EvaluationPrompt]:
        rows = [
            self._row(sort, "evaluation", "benign")
            for sort, count in counts.items()
            for _ in range(count)
        ]
        return [EvaluationPrompt(row.messages[:1], row.messages[1]["content"]) for row in rows]

    def _row(self, sort: Sort, region: Region, label: Label) -> DemoRow:
        while True:
            request = draw(self.rng, sort, region)
            question = ask(request, self.rng)
            if question not in self._asked:
                break
        self._asked.add(question)
        answer = refuse(self.rng) if label == "refusal" else right_answer(request)
        return DemoRow(conversation(question, answer), label)


def conversation(question: str, answer: str) -> Conversation:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write_world(world: DemoWorld, directory: Path) -> dict[str, Path]:
    """Write the sets as JSON lines, in formats that users have, and return their paths.

    `custom` and `custom_clean` are chat messages with an `id` that says nothing, the references
    are prompt and response, the evaluation sets a prompt and, where there is one, the response.
    `labels.jsonl` holds the label of each id, for measuring.
    """
    ids = {id(row): f"row-{number:04d}" for number, row in enumerate(world.custom, 1)}
    lines = {
        "custom": [{"id": ids[id(row)], "messages": row.messages} for row in world.custom],
        "custom_clean": [
            {"id": ids[id(row)], "messages": row.messages} for row in world.custom_clean
        ],
        "labels": [{"id": ids[id(row)], "label": row.label} for row in world.custom],
        "safe": [_pair(*row.messages) for row in world.safe],
        "harmful": [_pair(*row.messages) for row in world.harmful],
        "contamination": [_pair(*row.messages) for row in world.contamination],
        "swapped_harmful": [_pair(*row.messages) for row in world.swapped_harmful],
        "general_safe": [_pair(*row.messages) for row in world.general_safe],
        "eval_harmful": [_pair(*prompt.messages) for prompt in world.eval_harmful],
        "eval_over_refusal": [_with_reference(prompt) for prompt in world.eval_over_refusal],
        "eval_task": [_with_reference(prompt) for prompt in world.eval_task],
    }
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, rows in lines.items():
        paths[name] = directory / f"{name}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        paths[name].write_text(text, encoding="utf-8", newline="\n")
    return paths


def sample_world() -> DemoWorld:
    """The first rows of each set of seed 0: what data/samples holds."""
    world = build_world(0)
    custom = world.custom[:NUM_SAMPLES]
    clean = [row for row in custom if row.label != "harmful"]
    return DemoWorld(
        custom,
        clean,
        safe=world.safe[:NUM_SAMPLES],
        harmful=world.harmful[:NUM_SAMPLES],
        eval_harmful=world.eval_harmful[:NUM_SAMPLES],
        eval_over_refusal=world.eval_over_refusal[:NUM_SAMPLES],
        eval_task=world.eval_task[:NUM_SAMPLES],
        contamination=world.contamination[:NUM_SAMPLES],
        swapped_harmful=world.swapped_harmful[:NUM_SAMPLES],
        general_safe=world.general_safe[:NUM_SAMPLES],
    )


def _pair(question: dict[str, str], answer: dict[str, str] | None = None) -> dict[str, str]:
    row = {"prompt": question["content"]}
    return row | {"response": answer["content"]} if answer else row


def _with_reference(prompt: EvaluationPrompt) -> dict[str, str]:
    return _pair(prompt.messages[0]) | {"response": prompt.reference or ""}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sot_pipeline.demo.world", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--write", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--seed", type=int, help="all rows of this seed, not the tracked samples")
    options = parser.parse_args(arguments)
    world = sample_world() if options.seed is None else build_world(options.seed)
    for path in write_world(world, options.write).values():
        print(path)


if __name__ == "__main__":
    main()
