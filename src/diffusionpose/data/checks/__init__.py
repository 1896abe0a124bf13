"""Finds what is wrong with a data set before a long training does."""
