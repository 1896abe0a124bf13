"""Weights of other projects: ``reading`` opens their files, ``layouts`` knows their names, ``convert`` makes
models of them.
"""
