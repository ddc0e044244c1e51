"""One vector per conversation, from a frozen model.

`load` picks the encoder (`causal`: a language model, `sentence`: a sentence encoder), `views`
says what of a row becomes its vector, `embed` runs the encoder in batches, `row_cache` sees that
no text is embedded twice.
"""
