"""Metrics (OKS AP and AR, PCK, AI Challenger), OKS-NMS, and a model evaluated on a data set."""
