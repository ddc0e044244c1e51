"""One vector per conversation, from a frozen model.

`load` picks the encoder (`causal`: a language model, `sentence`: a sentence encoder),
`embed` runs it in batches, `row_cache` sees that no text is embedded twice.
"""
