"""IODINE (Greff et al. 2019) for TensorFlow 2 and Sonnet 2."""
