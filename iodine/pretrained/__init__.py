"""Trained models that come with the project."""

import os

TETROMINOES = os.path.join(os.path.dirname(__file__), "tetrominoes")
