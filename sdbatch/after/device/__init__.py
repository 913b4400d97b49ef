"""Stages with a model of their own, run on the device beside the model that generates."""
