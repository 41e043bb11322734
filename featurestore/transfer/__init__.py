"""Copies of whole segments between stores, here and at URLs: push and pull."""
