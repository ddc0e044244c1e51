"""Ask a model, judge its answers, score the verdicts."""
