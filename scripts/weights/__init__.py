"""Pretrained weights of every family, in and out."""
