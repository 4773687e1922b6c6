"""This library in the place of a PyTorch model: in transformers' pipelines and generate, and in sentence-transformers' encode.

Each module needs the package whose name it has; neither is imported before.
"""
