"""One experiment a file, made of the pieces of `base`."""
