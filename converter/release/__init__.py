"""Recipes, bundles, cards, provenance and publishing: from a converted model to files that others can check."""
