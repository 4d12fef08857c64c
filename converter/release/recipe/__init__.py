"""Recipes: one YAML file says from which repository a release is made, what it holds and how it is proved."""
