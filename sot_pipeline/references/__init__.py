"""References that keep up with attacks: rows to add, proposed here, accepted by a person."""
