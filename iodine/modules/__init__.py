"""The modules of the model and of its data, named as in the original."""
