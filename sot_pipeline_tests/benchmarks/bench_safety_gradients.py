"""What SPF rests on, looked at: is a safety gradient low-rank, and does the task work against it?

    python -m sot_pipeline_tests.benchmarks.bench_safety_gradients FOLDER [--model demo|large]

FOLDER as in `bench_defences` (the aligned model is trained there if it is not). Gradients of the
aligned model's whole matrices, every linear layer. A gradient of one row has at most as many
directions as the row has tokens, so that one row of the task stands beside one row of safety.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from sot_pipeline.finetuning.defences.adapted import adapted_matrices, weight_gradients
from sot_pipeline.finetuning.defences.subspace import leading_subspace
from sot_pipeline.finetuning.lora import add_lora
from sot_pipeline.finetuning.rows import Rows, tokenize
from sot_pipeline.language_model import load_language_model
from sot_pipeline_tests.benchmarks.bench_defences import SIZES, aligned, prepared

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Gradients = dict[str, torch.Tensor]


def energy(gradients: Gradients, rank: int, power: int) -> float:
    """Share of the first singular values (power 1) or their squares, median over matrices."""
    shares = []
    for gradient in gradients.values():
        s = torch.linalg.svdvals(gradient) ** power
        shares.append(float(s[:rank].sum() / s.sum()))
    return float(np.median(shares))


def cosine(one: Gradients, other: Gradients) -> float:
    left = torch.cat([g.flatten() for g in one.values()])
    right = torch.cat([g.flatten() for g in other.values()])
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0))


def negative_share(one: Gradients, other: Gradients) -> float:
    """Share of the matrices whose own cosine is negative."""
    return float(np.mean([float((one[name] * other[name]).sum()) < 0 for name in one]))


def overlap(one: Gradients, other: Gradients, rank: int) -> float:
    """Mean squared cosine of the principal angles of the leading left and right spaces, median."""
    found = []
    for name in one:
        a, b = leading_subspace(one[name], rank), leading_subspace(other[name], rank)
        for left, right in ((a.u, b.u), (a.v, b.v)):
            found.append(float((left.T @ right).square().sum() / left.shape[1]))
    return float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=SIZES, default="demo")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    world, _, _, demonstrations, _ = prepared(
        arguments.folder, arguments.model, arguments.seed, 0.1
    )
    lm = load_language_model(aligned(arguments.folder, arguments.model), device="cpu")
    model = add_lora(lm.model, rank=1, lora_alpha=1, target_modules=LINEAR, seed=0)
    matrices = adapted_matrices(model)

    def of(rows: Rows, chosen: list[int]) -> Gradients:
        part = Rows(
            [rows.token_ids[i] for i in chosen], [rows.is_answer[i] for i in chosen],
            *(field[chosen] for field in (rows.weights, rows.lengths, rows.num_answer_tokens)), 0,
        )  # fmt: skip
        return weight_gradients(model, matrices, part, size=16)[1]

    def rows_of(*labels: str) -> Rows:
        chosen = [row.messages for row in world.custom if row.label in labels][:64]
        return tokenize(lm.tokenizer, chosen, np.ones(len(chosen)), 256)

    safety = tokenize(lm.tokenizer, demonstrations, np.ones(len(demonstrations)), 256)
    task, harmful = rows_of("benign", "alarming"), rows_of("harmful")
    many = list(range(64))
    print("| gradient of | first 10 of sum s | first 10 of sum s^2 |\n|---|---|---|")
    kinds = {
        "1 refusal": of(safety, [0]), "64 refusals": of(safety, many),
        "1 task row": of(task, [0]), "64 task rows": of(task, many),
        "1 harmful row": of(harmful, [0]), "64 harmful rows": of(harmful, many),
    }  # fmt: skip
    for name, gradients in kinds.items():
        print(f"| {name} | {energy(gradients, 10, 1):.3f} | {energy(gradients, 10, 2):.3f} |")
    print("\n| cosine with the gradient of | 1 refusal | 64 refusals | matrices < 0 (64) |")
    print("|---|---|---|---|")
    for name in ("1 task row", "64 task rows", "1 harmful row", "64 harmful rows"):
        one, all_ = (cosine(kinds[name], kinds[s]) for s in ("1 refusal", "64 refusals"))
        share = negative_share(kinds[name], kinds["64 refusals"])
        print(f"| {name} | {one:+.3f} | {all_:+.3f} | {share:.0%} |")
    singles = [overlap(of(safety, [i]), kinds["64 refusals"], 10) for i in range(8)]
    other = [overlap(of(task, [i]), kinds["64 refusals"], 10) for i in range(8)]
    print(
        f"\noverlap of the first 10 directions with those of 64 refusals: one refusal "
        f"{np.mean(singles):.3f} ({min(singles):.3f} … {max(singles):.3f}), one task row "
        f"{np.mean(other):.3f} ({min(other):.3f} … {max(other):.3f}); by chance "
        f"{np.median([10 / n for m in matrices for n in m.weight.shape]):.3f}"
    )


if __name__ == "__main__":
    main()
