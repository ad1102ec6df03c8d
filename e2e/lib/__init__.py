"""The outside harness: real servers, real clients, throw-away keys. Standard library only.

Everything here lives in one temporary folder per run and is gone when the run ends, however it ends.
"""
