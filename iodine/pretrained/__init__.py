"""Trained models that come with the project."""

import os

LAPTOP = os.path.join(os.path.dirname(__file__), "laptop")
