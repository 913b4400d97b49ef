"""Decisions of people on outputs, and what follows from them.

lines --> decision.py --> files.py (reviews/*.jsonl, put if absent) --> fold.py --> Verdicts --> wanted.py
"""
