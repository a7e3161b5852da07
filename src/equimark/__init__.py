"""Equimark learns the landmarks of an object category from unlabelled images."""
