"""Results in the form that other tools load: model cards, merged models, trainers' folders."""
