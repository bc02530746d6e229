"""Tests of one package each, in memory."""
