"""Recipes, optimisation, progress and ONNX writing that all trainings share."""
