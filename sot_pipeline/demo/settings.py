"""Settings of the demo: what differs from the defaults for real text, and why."""

from typing import Any

DEMO_SETTINGS: dict[str, dict[str, Any]] = {
    "base_model": {"name": "demo"},
    "embedding": {"encoder": "base", "max_length": 256},
    "selection": {"keep_fraction": 0.8},
    # A model this small needs a far larger step than an 8B model, and learns in seconds.
    "finetuning": {
        "rank": 16,
        "lora_alpha": 16,
        "target_modules": ("q_proj", "v_proj"),
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "num_epochs": None,
        "num_steps": 100,
        "batch_size": 32,
        "micro_batch_size": 32,
        "max_length": 256,
    },
    "rivals": {
        "larf_layer": 4,  # the last: scaling a layer moves none of the aligned model's answers
        "options": {
            "seal": {
                "learning_rate": 1e-3,
                "num_epochs": 1,
                "batch_size": 32,
                "micro_batch_size": 32,
            },
            "toss": {
                "learning_rate": 1e-3,
                "num_epochs": 2,
                "batch_size": 32,
                "micro_batch_size": 32,
            },
        },
    },
    "evaluation": {
        "judge": "demo",
        "accuracy": "exact",
        "max_new_tokens": 40,
        "batch_size": 128,
    },
}
