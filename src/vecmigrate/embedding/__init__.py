"""Embedding models: what turns texts into vectors, and how the vectors of one model replace those of another."""

__all__ = []
